"""Trajectories beside those of the data, and the parameters that several fits found."""

import numpy as np
import torch
from torch import Tensor

from genpipe.capabilities import Example
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.sampling.draw import whole
from genpipe.sampling.trajectories import agreeing, bars_of, errors_of, initial_of, relative_error, solved


def judge_trajectory(trial: Trial) -> dict[str, float]:
    """Root mean squared error of a trajectory at the times of a split, over the size of each coordinate, beside two baselines.

    The baselines are the mean of the observations, and straight lines between them, level after the last.
    """
    x, train = whole(trial.data, trial.split), whole(trial.data, "train")
    if not x["seen"].any():
        raise NotMeasured(f"trajectory_error: nothing is observed in the split {trial.split}")
    lines, mean = straight_lines(trial, train, x["times"]), mean_of(train)
    found = solved(trial.recipe, trial.data, x["times"])
    errors = [float(relative_error(made, x, trial.data)) for made in (found, lines, mean.expand_as(found))]
    names = ("trajectory_error", "trajectory_error_line", "trajectory_error_mean")
    number = {"trajectory_num_observations": float(len(train["times"]))} if trial.split == "test" else {}
    return dict(zip(names, errors, strict=True)) | number


def judge_parameters(trial: Trial) -> dict[str, float]:
    """Error bars of the parameters of several fits, how far they are from the true ones where these are known, and how many fits agree."""
    recipe, data = trial.recipe, trial.data
    errors, bars = errors_of(recipe, data), bars_of(recipe, data)
    metrics = {
        "fits_agreeing": float(agreeing(recipe, data).double().mean()),
        "fit_error": float(errors.min()),
        "num_fits": float(len(errors)),
        "parameter_spread": max((bar.high - bar.low) / 2 / abs(bar.middle) for bar in bars.values()),
    }
    true = data.facts.get("parameters")
    if not true:
        return metrics
    return metrics | {
        "parameter_error": max(abs(bars[name].middle / value - 1) for name, value in true.items()),
        "parameters_covered": float(
            np.mean([bars[name].low <= value <= bars[name].high for name, value in true.items()])
        ),
    }


def mean_of(train: Example) -> Tensor:
    """The mean of what is observed of each coordinate, [dim]."""
    seen = train["seen"].double()
    return (train["values"].double() * seen).sum(0) / seen.sum(0).clamp(min=1)


def straight_lines(trial: Trial, train: Example, times: Tensor) -> Tensor:
    """Straight lines between the observations of each coordinate, its first state before them: [times, dim]."""
    first = trial.data.facts["first_time"]
    columns: list[np.ndarray] = []
    for initial, values, seen in zip(
        initial_of(trial.data)[0], train["values"].T, train["seen"].T, strict=True
    ):
        known = (
            np.concatenate([[first], train["times"][seen].numpy()]),
            np.concatenate([[float(initial)], values[seen].numpy()]),
        )
        columns.append(np.interp(times.numpy(), *known))
    return torch.from_numpy(np.stack(columns, 1))
