"""Multi-head attention whose queries and keys may be wider than its values, and whose heads may talk to each other.

Low-Rank Bottleneck in Multi-head Attention Models (Bhojanapalli et al., 2020, arXiv:2002.07028); Talking-Heads Attention
(Shazeer et al., 2020, arXiv:2003.02436); archives/7325.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.errors import BadInput
from genpipe.nn.synthesizer import MAKERS, Kind

Talking = Literal["none", "before", "after", "both"]
Past = tuple[Tensor, Tensor]  # keys [n, heads, time, key_size], values [n, heads, time, head_size]


class Positions(NamedTuple):
    """Positions of queries and of keys, int64 [n or 1, queries] and [n or 1, keys]."""

    queries: Tensor
    keys: Tensor


class Attention(nn.Module):
    """softmax(Q Kᵀ/√key_size) V over heads: [n, queries, dim] → the same shape.

    `kinds` says where the logits come from: the product of queries and keys, a Synthesizer, or a mixture of several, Σ αᵢ Bᵢ with
    Σ αᵢ = 1. `talking_heads` mixes the heads before the softmax, after it, or both; each mix starts as the identity.
    """

    def __init__(
        self, dim: int, num_heads: int, max_length: int, *, key_size: int | None = None, talking_heads: Talking = "none",
        kinds: Sequence[Kind] = ("product",), dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if dim % num_heads:
            raise BadInput(f"num_heads: must divide the width, {dim}, not {num_heads}")
        if not kinds or len(set(kinds)) < len(kinds):
            raise BadInput(f"attention: one or more different kinds, not {', '.join(kinds) or 'none'}")
        self.num_heads, self.head_size = num_heads, dim // num_heads
        self.key_size = (key_size or self.head_size) if "product" in kinds else 0
        self.kinds, self.dropout = tuple(kinds), dropout
        # Queries, keys and values in one product: the order of its outputs.
        self.project = nn.Linear(dim, num_heads * (2 * self.key_size + self.head_size))
        self.out = nn.Linear(dim, dim)
        width = key_size or self.head_size
        self.synthesizers = nn.ModuleDict(
            {kind: MAKERS[kind](dim, num_heads, width, max_length) for kind in kinds if kind != "product"}
        )
        self.shares = nn.Parameter(torch.zeros(len(kinds))) if len(kinds) > 1 else None
        self.before = _mix(num_heads) if talking_heads in ("before", "both") else None
        self.after = _mix(num_heads) if talking_heads in ("after", "both") else None

    def forward(
        self, x: Tensor, allowed: Tensor | None, positions: Positions, past: Past | None = None
    ) -> tuple[Tensor, Past]:
        """What each query gathers, and the keys and values of `past` and of x together.

        `allowed`, bool, spreads to [n, heads, queries, keys]; None: each query sees all keys.
        """
        query, key, value = self._projected(x)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        dropout = self.dropout if self.training else 0.0
        if self._is_plain:
            gathered = F.scaled_dot_product_attention(query, key, value, allowed, dropout)
        else:
            gathered = F.dropout(self._weights(x, query, key, allowed, positions), dropout) @ value
        return self.out(gathered.transpose(1, 2).flatten(2)), (key, value)

    def weights(self, x: Tensor, allowed: Tensor | None, positions: Positions) -> Tensor:
        """How much of each key's value a query takes, [n, heads, queries, keys]."""
        query, key, _ = self._projected(x)
        return self._weights(x, query, key, allowed, positions)

    @property
    def _is_plain(self) -> bool:
        return self.kinds == ("product",) and self.before is None and self.after is None

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [n, heads, time, size]."""
        sizes = (self.key_size, self.key_size, self.head_size)
        parts = self.project(x).split([self.num_heads * size for size in sizes], -1)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, size)).transpose(1, 2)
            for part, size in zip(parts, sizes, strict=True)
        )
        return query, key, value

    def _weights(
        self, x: Tensor, query: Tensor, key: Tensor, allowed: Tensor | None, positions: Positions
    ) -> Tensor:
        logits = self._logits(x, query, key, positions)
        if self.before is not None:
            logits = _mixed(self.before, logits)
        # Only now: a mix of -inf with a weight of 0 is NaN, and with another weight hides keys that a head sees.
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        weights = logits.softmax(-1)
        return weights if self.after is None else _mixed(self.after, weights)

    def _logits(self, x: Tensor, query: Tensor, key: Tensor, positions: Positions) -> Tensor:
        parts = [
            query @ key.transpose(-2, -1) / self.key_size**0.5
            if kind == "product"
            else self.synthesizers[kind](x, positions.queries, positions.keys)
            for kind in self.kinds
        ]
        if self.shares is None:
            return parts[0]
        return torch.stack(
            [
                a * part.expand(len(x), -1, -1, -1)
                for a, part in zip(self.shares.softmax(0), parts, strict=True)
            ]
        ).sum(0)


def _mix(num_heads: int) -> nn.Parameter:
    """A matrix over heads, [to, from], that leaves them as they are."""
    return nn.Parameter(torch.eye(num_heads))


def _mixed(mix: Tensor, heads: Tensor) -> Tensor:
    """Mixtures of heads, [n, heads, queries, keys]."""
    return torch.einsum("th,nhqk->ntqk", mix, heads)
