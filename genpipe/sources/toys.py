"""Points in the plane drawn from densities with a name: the first data that a density model is tried on.

Every point is a function of (shape, seed, number): the first 100 of 1,000 are those of 100. Labels are the part (moon,
Gaussian, arm, square) that a point belongs to.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpipe.params.corpora import Toys
from genpipe.sources.points import save_points
from genpipe.sources.prepared import Prepared

Uniform = NDArray[np.float64]  # [n, 4] in [0, 1)
Drawn = tuple[NDArray[np.float64], NDArray[np.int64]]  # points [n, 2] and parts [n]


def prepare_toys(source: Path, directory: Path, dataset: Toys) -> Prepared:
    """Write SPLIT_points.npy, float32 [n, 2], and SPLIT_labels.npy, uint8 [n]."""
    draw = SHAPES[dataset.shape]
    sides = {
        split: draw(_uniform(f"{dataset.shape}/{dataset.seed}/{split}", number))
        for split, number in (("train", dataset.num_train), ("test", dataset.num_test))
    }
    num_classes = int(draw(_uniform("parts", 1000))[1].max()) + 1
    prepared = save_points(directory, {split: (x, y) for split, (x, y) in sides.items()}, num_classes, {})
    return prepared._replace(facts={**prepared.facts, **MIXTURES.get(dataset.shape, {})})


def two_moons(u: Uniform) -> Drawn:
    """Two interleaved half circles of radius 1 with Gaussian noise of deviation 0.05."""
    part = (u[:, 0] * 2).astype(np.int64)
    angle = math.pi * u[:, 1]
    above = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    below = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    return np.where(part[:, None] == 0, above, below) + 0.05 * _normal(u), part


def eight_gaussians(u: Uniform) -> Drawn:
    """Eight Gaussians of deviation 0.2 on a circle of radius 2."""
    part = (u[:, 0] * 8).astype(np.int64)
    angle = math.pi / 4 * part
    return 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * _normal(u), part


def spirals(u: Uniform) -> Drawn:
    """Two arms of 1.5 turns, radius 0 to 3, with Gaussian noise of deviation 0.05."""
    part = (u[:, 0] * 2).astype(np.int64)
    turn = np.sqrt(u[:, 1])
    angle = 3 * math.pi * turn + math.pi * part
    return (3 * turn)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * _normal(u), part


def checkerboard(u: Uniform) -> Drawn:
    """Uniform on the eight dark squares of a board of 4 × 4 unit squares in [−2, 2]²; its density there is 1/8."""
    part = (u[:, 0] * 8).astype(np.int64)
    row = part // 2
    column = 2 * (part % 2) + row % 2
    corner = np.stack([column, row], axis=1) - 2.0
    return corner + u[:, 2:], part


def ring(u: Uniform) -> Drawn:
    """Eight Gaussians of deviation 0.1 on a circle of radius 2: far enough apart to count the modes that a model finds."""
    return _drawn_from("ring", u)


def grid(u: Uniform) -> Drawn:
    """25 Gaussians of deviation 0.05 at −4, −2, 0, 2, 4 in both directions (Dumoulin and others, ALI, 2017)."""
    return _drawn_from("grid", u)


def _drawn_from(name: str, u: Uniform) -> Drawn:
    centres = np.array(MIXTURES[name]["centres"])
    part = (u[:, 0] * len(centres)).astype(np.int64)
    return centres[part] + MIXTURES[name]["deviation"] * _normal(u), part


# Rounded: the last bit of a cosine depends on the processor, and these numbers are in data.json.
ON_CIRCLE = [
    [round(2 * math.cos(math.pi / 4 * k), 9) + 0.0, round(2 * math.sin(math.pi / 4 * k), 9) + 0.0]
    for k in range(8)
]
# Of mixtures of equal Gaussians: where the modes are, and the deviation of a coordinate; judges of samples read it.
MIXTURES: dict[str, dict[str, Any]] = {
    "eight_gaussians": {"centres": ON_CIRCLE, "deviation": 0.2},
    "ring": {"centres": ON_CIRCLE, "deviation": 0.1},
    "grid": {
        "centres": [[float(x), float(y)] for x in range(-4, 5, 2) for y in range(-4, 5, 2)],
        "deviation": 0.05,
    },
}
SHAPES: dict[str, Callable[[Uniform], Drawn]] = {
    "two_moons": two_moons,
    "eight_gaussians": eight_gaussians,
    "ring": ring,
    "grid": grid,
    "spirals": spirals,
    "checkerboard": checkerboard,
}


def _uniform(name: str, number: int) -> Uniform:
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "big")
    return np.random.Generator(np.random.Philox(key=key)).random((number, 4))


def _normal(u: Uniform) -> NDArray[np.float64]:
    """Standard normal points, [n, 2], of the last two uniform numbers (Box and Muller, 1958)."""
    radius = np.sqrt(-2 * np.log1p(-u[:, 2]))
    angle = 2 * math.pi * u[:, 3]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
