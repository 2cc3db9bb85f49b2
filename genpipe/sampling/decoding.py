"""From logits to tokens."""

from collections.abc import Collection

import torch
from torch import Tensor

from genpipe.recipe import Tags


def answer(model: Tags, tokens: Tensor, forbidden: Collection[int]) -> Tensor:
    """The likeliest token at each position, [batch, time], never a forbidden one and never the one it answers."""
    with torch.no_grad():
        logits = model.tag(tokens)
    logits[..., list(forbidden)] = -torch.inf
    return logits.scatter(-1, tokens.unsqueeze(-1), -torch.inf).argmax(-1)
