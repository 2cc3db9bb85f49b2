"""Penalties on how steep a critic is, by name: at which points, and what a slope costs there.

The slope at an example is the Euclidean norm of the gradient of its score by all its pixels.

two_sided: (slope − 1)² between real and generated examples: Improved Training of Wasserstein GANs (Gulrajani et al., 2017,
arXiv:1704.00028). one_sided: max(slope − 1, 0)² there (the same paper; archives/6139, whose code does not square it).
wgan_div: slope⁶ at real and at generated examples: Wasserstein Divergence for GANs (Wu et al., 2017, arXiv:1712.01026),
with the points of the code of archives/6139. r1: slope² / 2 at real examples: Which Training Methods for GANs do actually
Converge? (Mescheder, Geiger & Nowozin, 2018, arXiv:1801.04406).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.errors import BadInput

Scorer = Callable[[Tensor], Tensor]  # examples, [batch, ...] -> scores, [batch]
POWER = 6  # of WGAN-div


class Penalty(NamedTuple):
    """What is added to a critic's loss: the mean of `cost` over `points`, times a weight."""

    points: Callable[[Tensor, Tensor], Tensor]  # of real and generated examples; a multiple of the batch
    cost: Callable[[Tensor], Tensor]  # of slopes, [rows]
    weight: float  # of the source


def slopes(critic: Scorer, x: Tensor) -> Tensor:
    """Euclidean norm of the gradient of each score by its own example, over all dimensions but the first, [batch].

    `critic` must not normalise over the batch: a score would then have gradients by other examples too.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


def between(real: Tensor, fake: Tensor) -> Tensor:
    """A uniform point on the segment from each real example to its generated one, [batch, ...]."""
    # one weight an example, not one a pixel
    weight = torch.rand(len(real), *(1 for _ in real.shape[1:]), dtype=real.dtype, device=real.device)
    return torch.lerp(real, fake.to(real), weight)


PENALTIES: Mapping[str, Penalty] = {
    "two_sided": Penalty(between, lambda slope: (slope - 1).square(), 10.0),
    "one_sided": Penalty(between, lambda slope: F.relu(slope - 1).square(), 10.0),
    "wgan_div": Penalty(lambda real, fake: torch.cat([real, fake.to(real)]), lambda slope: slope**POWER, 2.0),
    "r1": Penalty(lambda real, fake: real, lambda slope: slope.square() / 2, 1.0),
}


def penalty(name: str) -> Penalty | None:
    """The penalty of a name, None of `none`; BadInput where there is no such name."""
    if name == "none":
        return None
    if name not in PENALTIES:
        raise BadInput(f"penalty: there is no {name!r}; there is: none, {', '.join(PENALTIES)}")
    return PENALTIES[name]
