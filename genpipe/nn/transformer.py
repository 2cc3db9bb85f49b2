"""A transformer over tokens with fixed positions on a grid (Vaswani et al., 2017, arXiv:1706.03762; Dosovitskiy et al., 2020,
arXiv:2010.11929)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.errors import BadInput


def grid_positions(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of the row and of the column of each cell, [rows · columns, dim], as in the code of MAE.

    A half of the numbers tells the row and a half the column: sin(i ω) and cos(i ω), ω from 1 down to 1/10,000.
    """
    if dim % 4:
        raise BadInput(f"width: must be a multiple of 4, for sines and cosines of two axes, not {dim}")
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    angles = places.unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(1).float()


def attention(query: Tensor, key: Tensor, value: Tensor, is_seen: Tensor | None = None) -> Tensor:
    """Softmax of products over the root of their dimension, [n, heads, time, dim] each; keys where `is_seen`, bool
    [n, time], is false have no weight."""
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if is_seen is not None:
        scores = scores.masked_fill(~is_seen[:, None, None], -torch.inf)
    return scores.softmax(-1) @ value


class Block(nn.Module):
    """Attention and a layer of four times the width, each after a normalisation and added to its input: [n, time, dim]."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise BadInput(f"num_heads: must divide the width, {dim}, not {num_heads}")
        self.num_heads = num_heads
        self.norm_one, self.norm_two = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mix = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.wide = nn.Linear(dim, 4 * dim)
        self.narrow = nn.Linear(4 * dim, dim)
        for layer in (self.mix, self.out, self.wide, self.narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, is_seen: Tensor | None = None) -> Tensor:
        """[n, time, dim] → [n, time, dim]; tokens where `is_seen`, bool [n, time], is false change no other token."""
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.mix(self.norm_one(x)).chunk(3, -1)
        )
        x = x + self.out(attention(query, key, value, is_seen).transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.wide(self.norm_two(x))))


class Transformer(nn.Module):
    """Blocks and a last normalisation: [n, time, dim] → [n, time, dim]."""

    def __init__(self, dim: int, num_blocks: int, num_heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, is_seen: Tensor | None = None) -> Tensor:
        """As of a block."""
        for block in self.blocks:
            x = block(x, is_seen)
        return self.norm(x)
