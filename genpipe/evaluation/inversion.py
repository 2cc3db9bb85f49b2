"""Whether the inverse of a flow inverts it, and whether its log-determinant is that of its Jacobian."""

import copy
from typing import Any

import torch
from torch import Tensor

from genpipe.capabilities import Example
from genpipe.data.loader import derived_seed
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.nn.pixels import dequantised
from genpipe.sampling.draw import first

NUM_INVERTED = 100  # examples
MOST_NUMBERS = 1024  # of all examples whose Jacobians are computed, and of one at most
MOST_JACOBIANS = 16
ROWS = 56  # of a Jacobian at once


def judge_inversion(trial: Trial) -> dict[str, float]:
    """The largest |x − f⁻¹(f(x))| over the numbers of the first 100 examples of the split, in the precision of the weights.

    Raises NotMeasured where some number of them is not finite.
    """
    x = observed(trial, NUM_INVERTED)
    with torch.no_grad():
        back = trial.recipe.inverse(trial.recipe.forward(x)[0], x)
    error = max(float((made - x[key]).abs().max()) for key, made in back.items())
    return {
        "inversion_error": _finite(error, "inversion_error: the inverse of the latents of a test example")
    }


def judge_log_det(trial: Trial) -> dict[str, float]:
    """The largest difference, in nats, of log-determinants from those of whole Jacobians, both in float64.

    Of one image, or of the first 16 points. Raises NotMeasured where the model estimates its log-determinant, or where an example
    has more than 1,024 numbers: its Jacobian has their square.
    """
    if trial.recipe.tightness != "exact":
        raise NotMeasured(
            "log_det_error: the log-determinant of this model is an estimate, so it has a variance and no error"
        )
    model = copy.deepcopy(trial.recipe).double()
    x = {name: doubled(value) for name, value in observed(trial, MOST_JACOBIANS).items()}
    dim = x[trial.kind][0].numel()
    if dim > MOST_NUMBERS:
        raise NotMeasured(
            f"log_det_error: the Jacobian of an example of {dim:,} numbers has {dim**2:,}; {MOST_NUMBERS:,} numbers are the most"
        )
    number = min(MOST_JACOBIANS, MOST_NUMBERS // dim)
    errors = [
        log_det_error(model, {name: value[i : i + 1] for name, value in x.items()}, trial.kind)
        for i in range(number)
    ]
    return {"log_det_error": _finite(max(errors), "log_det_error: the log-determinant of a test example")}


def log_det_error(model: Any, one: Example, key: str) -> float:
    """|ln |det ∂z/∂x| of the model − that of its Jacobian| at one example; `key` names x."""
    with torch.no_grad():
        said = model.forward(one)[1]
    return float((said[0] - torch.linalg.slogdet(jacobian(model, one, key)).logabsdet).abs())


def jacobian(model: Any, one: Example, key: str) -> Tensor:
    """∂z/∂x at one example, [dim, dim], in the type of x: from copies of the example, each of which gives a row."""
    rows = []
    for units in torch.eye(one[key].numel(), dtype=one[key].dtype).split(ROWS):
        copies = {name: value.repeat(len(units), *[1] * (value.dim() - 1)) for name, value in one.items()}
        copies[key].requires_grad_()
        z, _ = model.forward(copies)
        rows.append(torch.autograd.grad(z, copies[key], units)[0].flatten(1))
    return torch.cat(rows)


def observed(trial: Trial, num: int) -> Example:
    """The first examples of the split: images dequantised, points as they are."""
    x = first(trial.data, num, trial.split)
    if "images" not in x:
        return x
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(trial.seed, "inversion"))
        return {**x, "images": dequantised(x["images"])}


def doubled(value: Tensor) -> Tensor:
    """Numbers in double precision; labels as they are."""
    return value.double() if value.is_floating_point() else value


def _finite(error: float, what: str) -> float:
    if not error < float("inf"):
        raise NotMeasured(f"{what} is not finite; train with a lower learning rate, or clip gradients")
    return error
