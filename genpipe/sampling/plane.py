"""Functions of points in the plane as maps, with points of the data on top."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genpipe.capabilities import Example
from genpipe.data.loader import Data
from genpipe.sampling.draw import first, in_chunks
from genpipe.sampling.pictures import write_png
from genpipe.sampling.showing import Row, Showing

SIDE = 240  # values of a map along each axis
SCALE = 2  # pixels of a value
POINTS = 500  # of the data
BANDS = 24  # colours of a map; their borders are lines of equal value
# from low to high; the colours of matplotlib's viridis at equal distances
COLOURS = ((68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137), (53, 183, 121),
           (109, 205, 89), (180, 222, 44), (253, 231, 37))  # fmt: skip
POINT, RIM, DATA, SAMPLE = (255, 255, 255), (0, 0, 0), (205, 205, 205), (20, 60, 160)


class Frame(NamedTuple):
    """A square of the plane, and points of the data in it, [n, 2]."""

    low: np.ndarray
    high: np.ndarray
    points: np.ndarray

    def places(self, points: np.ndarray, side: int) -> np.ndarray:
        """Row and column, int64 [n, 2], of the points inside, in a picture of `side` pixels; the second axis points up."""
        shares = (points - self.low) / (self.high - self.low)
        inside = shares[np.isfinite(shares).all(1) & (shares >= 0).all(1) & (shares < 1).all(1)]
        return np.stack([side - 1 - np.floor(inside[:, 1] * side), np.floor(inside[:, 0] * side)], 1).astype(
            int
        )


def frame_of(data: Data) -> Frame:
    """A square around points of the test data, a fifth of it margin on each side."""
    points = first(data, POINTS)["points"].numpy().astype(np.float64)
    points = np.pad(points, ((0, 0), (0, max(0, 2 - points.shape[1]))))[:, :2]
    middle = (points.min(0) + points.max(0)) / 2
    half = max(float(np.ptp(points, axis=0).max()), 1e-6) * 0.7
    return Frame(middle - half, middle + half, points)


def dots(frame: Frame, points: np.ndarray, side: int) -> np.ndarray:
    """A picture of points, float [n, dim], over those of the data, uint8 [side, side, 3]."""
    points = np.pad(points.astype(np.float64), ((0, 0), (0, max(0, 2 - points.shape[1]))))[:, :2]
    canvas = np.full((side, side, 3), 255, dtype=np.uint8)
    for part, colour in ((frame.points, DATA), (points, SAMPLE)):
        for row, column in frame.places(part, side):
            canvas[max(0, row - 1) : row + 1, column : column + 2] = colour
    return canvas


def map_of_energies(showing: Showing) -> Iterable[Row]:
    """Energies, low where examples are likely."""
    function = lambda x: -showing.recipe.energy(x)
    return _mapped(showing, "Energy", "Energies, low where the model finds points likely", function, -1)


def map_of_scores(showing: Showing) -> Iterable[Row]:
    """The scores of a critic, high for real examples."""
    return _mapped(
        showing, "Critic", "Scores, high where the critic takes points for real", showing.recipe.score
    )


def map_of_densities(showing: Showing) -> Iterable[Row]:
    """Log-densities in nats."""
    return _mapped(showing, "Log-density", "Nats, high where points are likely", showing.recipe.log_prob)


def _mapped(
    showing: Showing, title: str, what: str, function: Callable[[Example], Tensor], sign: int = 1
) -> Iterable[Row]:
    """A map of `sign` times a function that is high where points are likely; nothing for other points than of a plane."""
    if showing.data.facts["dim"] != 2 or getattr(showing.recipe, "given", ()):
        return
    frame = frame_of(showing.data)
    values = values_on(frame, function)
    file = f"map_{title.lower().replace('-', '_')}.png"
    write_png(showing.directory / file, painted(frame, values))
    known = sign * values[np.isfinite(values)]
    (left, low), (right, high) = frame.low, frame.high
    caption = (
        f"{what}: {known.min():.3g} to {known.max():.3g}, bright where points are likely. The square is {left:.3g} to {right:.3g} "
        f"by {low:.3g} to {high:.3g}; bands of one colour are the finer the likelier. Points: {len(frame.points)} of the test data."
    )
    yield Row(file, "picture", title, caption if len(known) else "No value of the map is finite.")


def values_on(frame: Frame, function: Callable[[Example], Tensor]) -> np.ndarray:
    """The values of a function of points at the middles of the pixels, float64 [side, side], the first row on top."""
    shares = (np.arange(SIDE) + 0.5) / SIDE
    across, up = (a + (b - a) * shares for a, b in zip(frame.low, frame.high, strict=True))
    points = np.stack(np.meshgrid(across, up[::-1]), axis=-1).reshape(-1, 2)
    found = in_chunks(function, {"points": torch.from_numpy(points.astype(np.float32))})
    return found.double().numpy().reshape(SIDE, SIDE)


def painted(frame: Frame, values: np.ndarray) -> np.ndarray:
    """A picture, uint8 [height, width, 3], of values, [side, side], by their rank, and of the points of a frame on top."""
    is_known = np.isfinite(values)
    colours = np.full((*values.shape, 3), 128, dtype=np.uint8)
    if is_known.any():
        known = values[is_known]
        borders = np.quantile(known, 1 - (1 - np.arange(1, BANDS) / BANDS) ** 3)
        colours[is_known] = palette()[np.searchsorted(borders, known, side="right")]
    canvas = colours.repeat(SCALE, 0).repeat(SCALE, 1)
    for size, colour in ((2, RIM), (1, POINT)):
        for row, column in frame.places(frame.points, len(canvas)):
            canvas[max(0, row - size) : row + size, max(0, column - size) : column + size] = colour
    return canvas


def palette() -> np.ndarray:
    """A colour for each band, uint8 [bands, 3], from unlikely to likely."""
    places, given = np.linspace(0, 1, BANDS), np.linspace(0, 1, len(COLOURS))
    return np.rint(
        np.stack([np.interp(places, given, part) for part in zip(*COLOURS, strict=True)], 1)
    ).astype(np.uint8)
