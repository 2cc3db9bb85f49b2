"""Near copies of pictures: the same drawing in another tone, size or compression."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from genpipe.progress import shown

# Measured: at 0.98 the tones of skin of an emoji are together, and digits of different writers are not, but for a few ones.
CORRELATION = 0.98
SIDE = 32  # pixels at most, to which pictures are reduced before they are compared; at 16 hundreds of ones would be one group
CHUNK = 500  # rows compared with the later ones at once


def near_copies(images: NDArray[np.uint8]) -> list[list[tuple[int, int]]]:
    """For each picture, uint8 [n, channels, size, size], the pairs it is in: two whose brightness correlates by CORRELATION or more.

    Brightness is the sum of the channels, so the same drawing in another colour is a near copy too. The time grows with n². A picture of one brightness is in no pair.
    """
    pairs: list[list[tuple[int, int]]] = [[] for _ in images]
    for pair in _pairs(_reduced(images)):
        for member in pair:
            pairs[member].append(pair)
    return pairs


def _reduced(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Sums over blocks, [n, at most SIDE²]: whole numbers."""
    size = images.shape[-1]
    edges = np.arange(0, size, math.ceil(size / SIDE))
    rows = np.add.reduceat(images.sum(1, dtype=np.float64), edges, axis=1)
    return np.add.reduceat(rows, edges, axis=2).reshape(len(images), len(edges) ** 2)


def _pairs(rows: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    # Sums of products of whole numbers below 2**53 are exact in any order, so the pairs are the same on every machine.
    total, dim = rows.sum(1), rows.shape[1]
    spread = dim * np.square(rows).sum(1) - np.square(total)
    spread[spread == 0] = np.inf
    for start in shown(range(0, len(rows), CHUNK), "compare", f"batches of {CHUNK}"):
        part = slice(start, start + CHUNK)
        covariance = dim * (rows[part] @ rows[start:].T) - np.outer(total[part], total[start:])
        near = covariance >= CORRELATION * np.sqrt(np.outer(spread[part], spread[start:]))
        for i, j in np.argwhere(np.triu(near, 1)).tolist():
            yield start + i, start + j
