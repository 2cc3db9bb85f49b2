"""Trajectories beside those of the data, and the parameters that several fits found."""

import math

import numpy as np
import torch
from torch import Tensor

from genpipe.capabilities import Example
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.sampling.draw import whole
from genpipe.sampling.trajectories import bars_of, initial_of, solved

AGREES = 2.0  # times the least error, for a fit to have found what the best one found
ENOUGH = 0.01  # of the sizes of the coordinates: fits below it agree whatever the least error is


def judge_trajectory(trial: Trial) -> dict[str, float]:
    """Root mean squared error of a trajectory at the times of a split, over the size of each coordinate, beside two baselines.

    The baselines are the mean of the observations, and straight lines between them, level after the last.
    """
    x, train = whole(trial.data, trial.split), whole(trial.data, "train")
    if not x["seen"].any():
        raise NotMeasured(f"trajectory_error: nothing is observed in the split {trial.split}")
    scales = torch.tensor(trial.data.facts["scales"]).double()
    lines, mean = straight_lines(trial, train, x["times"]), mean_of(train)
    found = solved(trial.recipe, trial.data, x["times"])
    errors = [relative_error(made, x, scales) for made in (found, mean.expand_as(found), lines)]
    names = ("trajectory_error", "trajectory_error_mean", "trajectory_error_line")
    number = {"trajectory_num_observations": float(len(train["times"]))} if trial.split == "test" else {}
    return dict(zip(names, errors, strict=True)) | number


def judge_parameters(trial: Trial) -> dict[str, float]:
    """Error bars of the parameters of several fits, how far they are from the true ones where these are known, and how many fits agree."""
    recipe, train = trial.recipe, whole(trial.data, "train")
    scales = torch.tensor(trial.data.facts["scales"]).double()
    with torch.no_grad():
        fits = recipe.fitted(train["times"]).double()
    errors = torch.tensor([relative_error(made, train, scales) for made in fits])
    bars = bars_of(recipe)
    metrics = {
        "fits_agreeing": float((errors <= max(AGREES * float(errors.min()), ENOUGH)).double().mean()),
        "fit_error": float(errors.min()),
        "num_fits": float(len(errors)),
        "parameter_spread": max((bar.high - bar.low) / 2 / abs(bar.middle) for bar in bars.values()),
    }
    true = trial.data.facts.get("parameters")
    if not true:
        return metrics
    return metrics | {
        "parameter_error": max(abs(bars[name].middle / value - 1) for name, value in true.items()),
        "parameters_covered": float(
            np.mean([bars[name].low <= value <= bars[name].high for name, value in true.items()])
        ),
    }


def relative_error(made: Tensor, x: Example, scales: Tensor) -> float:
    """Root mean square of (made − values) / scales over what is seen; made and values are [times, dim]."""
    errors = ((made.double() - x["values"].double()) / scales).square()
    return math.sqrt(float(errors[x["seen"]].mean()))


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
