"""Which tokens of a row are left, chosen at random, and how the others come back to their places.

A model that is trained on some tokens, whose positions were added before (DropToken, archives/8770), takes all of them
afterwards and nothing is to be made up for: attention to all is normalised as attention to some.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Kept(NamedTuple):
    """`rows`, int64 [n, number]: the places that are left; `restore`, int64 [n, length]: the inverse of the whole shuffle."""

    rows: Tensor
    restore: Tensor


def keep_some(n: int, length: int, number: int, device: torch.device | None = None) -> Kept:
    """`number` of `length` places of each of `n` rows, every choice equally likely, by torch's global generator."""
    shuffled = torch.rand(n, length, device=device).argsort(dim=1, stable=True)
    return Kept(shuffled[:, :number], shuffled.argsort(dim=1, stable=True))


def taken(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens, [n, number, dim], at places, int64 [n, number], of tokens, [n, length, dim]."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def is_kept(kept: Kept) -> Tensor:
    """Whether each place is left, bool [n, length]."""
    return kept.restore < kept.rows.shape[1]
