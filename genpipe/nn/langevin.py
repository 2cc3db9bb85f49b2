"""Langevin dynamics on images (Du, Mordatch, *Implicit Generation and Generalization in Energy-Based Models*, 2019)."""

from collections.abc import Callable

import torch
from torch import Tensor


def langevin(
    energy: Callable[[Tensor], Tensor],
    x: Tensor,
    num_steps: int,
    step: float,
    noise: float,
    bound: float = torch.inf,
) -> Tensor:
    """The end of a chain from each image in [0, 1], [batch, channels, height, width]; no gradient flows through it.

    In the order of the authors' code: add Gaussian noise of deviation `noise`, take the gradient of `energy`, [batch], there,
    clip each of its elements to ±`bound`, go `step` times it downhill, clip the pixels to [0, 1].
    At temperature 1 noise² is 2 · step; pictures are drawn far colder than that.
    """
    x = x.detach()
    with torch.enable_grad():
        for _ in range(num_steps):
            x = (x + noise * torch.randn_like(x)).requires_grad_()
            (gradient,) = torch.autograd.grad(energy(x).sum(), x)  # by x alone: no parameter gets a gradient
            x = (x.detach() - step * gradient.clamp(-bound, bound)).clamp(0, 1)
    return x
