"""Gated residual convolution over a sequence."""

import torch
from torch import Tensor, nn


class GatedResidualConv(nn.Module):
    """x ↦ x·σ(g) + h·(1 − σ(g)) with [g, h] = Conv1D(x): a convex gate between the input and a new value."""

    def __init__(self, dim: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, 2 * dim, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, dim, time] → [batch, dim, time]."""
        gate, new = self.conv(x).chunk(2, dim=1)
        return torch.lerp(new, x.to(new), gate.sigmoid())
