"""Densities of the plane that are known up to a factor, normalised on a grid."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from genpipe.capabilities import Example
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.sampling.draw import in_chunks, whole

SIDE = 200  # rows and columns
MARGIN = 0.25  # of the width of the points, on each side


class Square(NamedTuple):
    """A square of the plane by its lower left corner and the length of a side."""

    left: float
    bottom: float
    length: float


class EnergyMap(NamedTuple):
    """Coordinates of the middles of cells, [side], and their energies, float64 [side, side]: row i has y[i], column j has x[j]."""

    x: Tensor
    y: Tensor
    energies: Tensor

    def log_partition(self) -> float:
        """ln ∫ exp(−U) over the square, by its middles: −U − that is the log-density, in nats, of points in it."""
        area = float(self.x[1] - self.x[0]) * float(self.y[1] - self.y[0])
        least = float(self.energies.min())
        return math.log(float((least - self.energies).exp().sum()) * area) - least


def judge_energy(trial: Trial) -> dict[str, float]:
    """Mean of −ln p in nats a test point, p ∝ exp(−energy) on the square about the training and test points.

    What the samples of a model look like says little of its energy: chains that are too short or too long make good samples
    of a wrong density. Raises NotMeasured where the points are not in a plane.
    """
    train, points = (whole(trial.data, split)["points"] for split in ("train", trial.split))
    if points.shape[1] != 2:
        raise NotMeasured(
            f"nats_per_point_on_grid: a grid of {points.shape[1]} dimensions is too large; it takes points in the plane"
        )
    found = energy_map(trial.recipe.energy, square_around(torch.cat([train, points])))
    energies = in_chunks(trial.recipe.energy, {"points": points})
    return {"nats_per_point_on_grid": float(energies.double().mean()) + found.log_partition()}


def square_around(points: Tensor, margin: float = MARGIN) -> Square:
    """The square about all points, [n, 2], with `margin` times its width free on each side."""
    low, high = points.double().amin(0), points.double().amax(0)
    length = max(float((high - low).max()), 1e-6) * (1 + 2 * margin)
    left, bottom = ((low + high - length) / 2).tolist()
    return Square(left, bottom, length)


def energy_map(energy: Callable[[Example], Tensor], square: Square, side: int = SIDE) -> EnergyMap:
    """The energies of the middles of side × side cells. `energy` takes `points`, [n, 2]; minus the score of a critic will do."""
    steps = (torch.arange(side, dtype=torch.float64) + 0.5) * (square.length / side)
    x, y = square.left + steps, square.bottom + steps
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    points = torch.stack([columns.flatten(), rows.flatten()], 1).to(torch.get_default_dtype())
    return EnergyMap(x, y, in_chunks(energy, {"points": points}).double().view(side, side))
