"""Exact nearest neighbours among many candidates, some at a time."""

import torch
from torch import Tensor

CHUNK = 4096  # candidates whose products are in memory at once


def nearest_on_sphere(x: Tensor, candidates: Tensor, chunk: int = CHUNK) -> Tensor:
    """The place of the nearest of unit vectors, [m, dim], to each of others, [n, dim]: int64 [n], the first of equals.

    On the sphere the largest product is the least distance.
    """
    best, places = (x @ candidates[:chunk].T).max(1)
    for start in range(chunk, len(candidates), chunk):
        product, place = (x @ candidates[start : start + chunk].T).max(1)
        is_nearer = product > best
        best, places = torch.where(is_nearer, product, best), torch.where(is_nearer, start + place, places)
    return places
