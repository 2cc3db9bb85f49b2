"""Additive coupling layers (Dinh, Krueger, Bengio, NICE, 2014, arXiv:1410.8516)."""

import itertools

from torch import Tensor, nn


def mlp(in_dim: int, hidden_dim: int, num_hidden: int, out_dim: int) -> nn.Sequential:
    """A ReLU network with `num_hidden` hidden layers."""
    dims = [in_dim] + [hidden_dim] * num_hidden
    hidden = [layer for a, b in itertools.pairwise(dims) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(dims[-1], out_dim))


class AdditiveCoupling(nn.Module):
    """(a, b) → (a, b + m(a)): volume preserving, inverted by subtracting."""

    def __init__(self, kept_dim: int, moved_dim: int, hidden_dim: int, num_hidden: int) -> None:
        super().__init__()
        self.shift = mlp(kept_dim, hidden_dim, num_hidden, moved_dim)

    def forward(self, kept: Tensor, moved: Tensor) -> Tensor:
        """The moved half, [batch, moved]."""
        return moved + self.shift(kept)

    def inverse(self, kept: Tensor, moved: Tensor) -> Tensor:
        """The moved half before `forward`, [batch, moved]."""
        return moved - self.shift(kept)
