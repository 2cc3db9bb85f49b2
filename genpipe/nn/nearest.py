"""Exact nearest neighbours among many candidates, some at a time."""

from collections.abc import Iterable

import torch
from torch import Tensor

CHUNK = 4096  # candidates whose products are in memory at once


def nearest_on_sphere(x: Tensor, candidates: Tensor, chunk: int = CHUNK) -> Tensor:
    """The place of the nearest of unit vectors, [m, dim], to each of others, [n, dim]: int64 [n], the first of equals.

    On the sphere the largest product is the least distance.
    """
    return _places_of_largest(x @ part.T for part in candidates.split(chunk))


def nearest(x: Tensor, parts: Iterable[Tensor]) -> Tensor:
    """The place of the nearest of candidates, which come in parts, [some, dim], to each row, [n, dim]: int64 [n], the first of equals.

    ‖x − c‖² is least where x · c − ‖c‖²/2 is largest. Only one part need be in memory.
    """
    return _places_of_largest(x @ part.T - part.square().sum(1) / 2 for part in parts)


def _places_of_largest(parts: Iterable[Tensor]) -> Tensor:
    """The column of the largest of scores, which come in parts, [n, some], in each row, over all parts: int64 [n], the first of equals."""
    best, places, start = None, None, 0
    for part in parts:
        largest, place = part.max(1)
        if best is None or places is None:
            best, places = largest, place
        else:
            is_larger = largest > best
            best, places = (
                torch.where(is_larger, largest, best),
                torch.where(is_larger, start + place, places),
            )
        start += part.shape[1]
    assert places is not None, "there are no candidates"
    return places
