"""Langevin dynamics on images (Du, Mordatch, *Implicit Generation and Generalization in Energy-Based Models*, 2019)."""

from collections.abc import Callable

import torch
from torch import Tensor

Slope = Callable[[Tensor], Tensor]  # images → the gradient of the energy of each, of the same shape


def by_autograd(energy: Callable[[Tensor], Tensor]) -> Slope:
    """The gradient of energies, [batch], by images alone: no parameter gets one."""

    def slope(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(energy(x).sum(), x)[0]

    return slope


def langevin(
    slope: Slope,
    x: Tensor,
    num_steps: int,
    step: float,
    noise: float,
    bound: float = torch.inf,
) -> Tensor:
    """The end of a chain from each image in [0, 1], [batch, channels, height, width]; no gradient flows through it.

    In the order of the authors' code: add Gaussian noise of deviation `noise`, take the gradient of the energy there, clip each
    of its elements to ±`bound`, go `step` times it downhill, clip the pixels to [0, 1].
    At temperature 1 noise² is 2 · step; pictures are drawn far colder than that.
    """
    x = x.detach()
    with torch.no_grad():
        for _ in range(num_steps):
            x = x + noise * torch.randn_like(x)
            x = (x - step * slope(x).clamp(-bound, bound)).clamp(0, 1)
    return x
