"""Attention of one sequence over another, whose keys and values can be kept (Vaswani et al., 2017, arXiv:1706.03762)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.errors import BadInput

Memory = tuple[Tensor, Tensor]  # keys and values, [n, heads, time, head_size] each


class CrossAttention(nn.Module):
    """softmax(Q Kᵀ/√head_size) V over heads, without biases and without a product after it: [n, queries, dim] → the same shape."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise BadInput(f"num_heads: must divide the width, {dim}, not {num_heads}")
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)

    def read(self, x: Tensor, before: Memory | None = None) -> Memory:
        """Keys and values of what can be looked at, [n, time, dim], behind those of `before`."""
        key, value = (self._heads(part) for part in self.key_value(x).chunk(2, -1))
        return (
            (key, value)
            if before is None
            else (torch.cat([before[0], key], 2), torch.cat([before[1], value], 2))
        )

    def forward(self, x: Tensor, memory: Memory, allowed: Tensor) -> Tensor:
        """`allowed`, bool, spreads to [n, heads, queries, keys]; each query must see a key."""
        gathered = F.scaled_dot_product_attention(self._heads(self.query(x)), *memory, allowed)
        return gathered.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
