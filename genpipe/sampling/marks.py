"""Ids that stand for no text, and logits without them."""

from typing import NamedTuple

import torch
from torch import Tensor


class Marks(NamedTuple):
    """Ids that stand for no text: what begins and ends a text, and what fills the rest of a row."""

    opening: tuple[int, ...]  # what a model reads before the first token, a start mark first
    end: int
    pad: int


def without(logits: Tensor, marks: Marks) -> Tensor:
    """Logits, [..., num_tokens], under which no text has a start mark or padding in it."""
    return logits.index_fill(-1, torch.tensor([marks.opening[0], marks.pad]), -torch.inf)


def unended(logits: Tensor, marks: Marks) -> Tensor:
    """Logits, [n, num_tokens], under which no text ends; one that can only end keeps its end mark."""
    others = logits.index_fill(-1, torch.tensor([marks.end]), -torch.inf)
    return torch.where(others.isneginf().all(-1, keepdim=True), logits, others)
