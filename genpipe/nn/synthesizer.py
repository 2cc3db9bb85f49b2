"""Logits of attention that no query is compared with a key for: Synthesizer (Tay et al., 2020, arXiv:2005.00743; archives/7430).

Each is a module that gives [n, heads, queries, keys] of the queries' features and the positions of queries and keys. Columns
belong to positions, not to places in a batch, so padding between a source and a target changes nothing.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["product", "dense", "random", "fixed_random", "factorised_dense", "factorised_random"]
RANK = 8  # of a factorised random table, as in the paper


class Dense(nn.Module):
    """relu(x W₁ + b₁) W₂ + b₂ for each head: a row of logits over all positions out of the query alone."""

    def __init__(self, dim: int, num_heads: int, key_size: int, max_length: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, num_heads * key_size)
        self.heads = num_heads
        self.table = nn.Parameter(0.02 * torch.randn(num_heads, key_size, max_length))
        self.bias = nn.Parameter(torch.zeros(num_heads, 1, max_length))

    def forward(self, x: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Logits of features x, [n, queries, dim]."""
        hidden = F.relu(self.hidden(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return columns(hidden @ self.table + self.bias, keys)


class FactorisedDense(nn.Module):
    """Two maps to a and b numbers with a b ≥ positions; position j gets A[j mod a] · B[j div a].

    Tiling both alike, as in the article, would leave lcm(a, b) different products only.
    """

    def __init__(self, dim: int, num_heads: int, key_size: int, max_length: int) -> None:
        super().__init__()
        self.heads, self.max_length = num_heads, max_length
        self.short = math.isqrt(max_length - 1) + 1
        self.long = -(-max_length // self.short)
        self.one = nn.Linear(dim, num_heads * self.short)
        self.two = nn.Linear(dim, num_heads * self.long)

    def forward(self, x: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Logits of features x, [n, queries, dim]."""
        one, two = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.one, self.two)
        )
        return columns((two.unsqueeze(-1) * one.unsqueeze(-2)).flatten(-2)[..., : self.max_length], keys)


class Random(nn.Module):
    """A table of logits for each pair of positions, learnt or left as it was drawn."""

    def __init__(self, num_heads: int, max_length: int, is_learnt: bool = True) -> None:
        super().__init__()
        drawn = torch.randn(num_heads, max_length, max_length)
        if is_learnt:
            self.table = nn.Parameter(0.02 * drawn)
        else:
            self.register_buffer("table", drawn)

    def forward(self, x: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Logits of pairs of positions; features do not count."""
        return self.table[:, queries.unsqueeze(-1), keys.unsqueeze(-2)].transpose(0, 1)


class FactorisedRandom(nn.Module):
    """The table R₁ R₂ᵀ, of rank 8."""

    def __init__(self, num_heads: int, max_length: int) -> None:
        super().__init__()
        self.one = nn.Parameter(0.02**0.5 * torch.randn(num_heads, max_length, RANK))
        self.two = nn.Parameter(0.02**0.5 * torch.randn(num_heads, max_length, RANK))

    def forward(self, x: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Logits of pairs of positions; features do not count."""
        return (self.one[:, queries] @ self.two[:, keys].transpose(-2, -1)).transpose(0, 1)


def columns(logits: Tensor, keys: Tensor) -> Tensor:
    """The columns of logits, [n, heads, queries, max_length], at positions of keys, int64 [n or 1, keys]."""
    n, heads, queries, _ = logits.shape
    return logits.gather(-1, keys[:, None, None].expand(n, heads, queries, keys.shape[-1]))


MAKERS: Mapping[str, Callable[[int, int, int, int], nn.Module]] = {
    "dense": Dense,
    "factorised_dense": FactorisedDense,
    "random": lambda dim, heads, key_size, length: Random(heads, length),
    "fixed_random": lambda dim, heads, key_size, length: Random(heads, length, is_learnt=False),
    "factorised_random": lambda dim, heads, key_size, length: FactorisedRandom(heads, length),
}
