"""Affine couplings of the coordinates of the plane.

Dinh, Sohl-Dickstein and Bengio, Density Estimation Using Real NVP, 2016, arXiv:1605.08803.
"""

import math

import torch
from torch import nn

from genpipe.capabilities import Invertible, Samples
from genpipe.recipe import Loss, Phase, Recipe, Update


class PlaneFlow(Recipe, Invertible, Samples):
    """A density of points in the plane."""

    def __init__(self, dim: int, hidden_dim: int = 8):
        super().__init__()
        self.dim = dim
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(1, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, 2)) for _ in range(dim)
        )

    def phases(self):
        return (Phase("likelihood", (Update("nll", self.nats, (self,)),)),)

    def nats(self, batch):
        return Loss(-self.log_prob(batch).mean())

    def forward(self, x):
        z = list(x["points"].unbind(1))
        log_det = torch.zeros_like(z[0])
        for i, net in enumerate(self.nets):
            scale, shift = net(z[i].unsqueeze(1)).unbind(1)
            z[1 - i] = z[1 - i] * scale.tanh().exp() + shift
            log_det = log_det + scale.tanh()
        return torch.stack(z, 1), log_det

    def inverse(self, z, given):
        x = list(z.unbind(1))
        for i, net in reversed(list(enumerate(self.nets))):
            scale, shift = net(x[i].unsqueeze(1)).unbind(1)
            x[1 - i] = (x[1 - i] - shift) * (-scale.tanh()).exp()
        return {"points": torch.stack(x, 1)}

    def prior_log_prob(self, z, given):
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    def sample(self, n, given):
        return self.inverse(torch.randn(n, self.dim), given)
