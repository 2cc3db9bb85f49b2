"""Markov chains by the gradient of an energy: unadjusted and Metropolis-adjusted Langevin dynamics.

A proposal is z' = z − ε/2 ∇U(z) + √ε ξ with ξ ~ N(0, I), ε the `step`, so its density is
q(z'|z) ∝ exp(−‖z' − z + ε/2 ∇U(z)‖² / 2ε). The article (archives/6331) prints exp(−ε/2 ‖z' − z + ε∇U‖²), which is not the density
of its own proposal: on U = z²/2 with ε = 1 its chains have the variance 1.33. Others write α = ε/2 and √(2α).

Roberts and Tweedie, *Exponential convergence of Langevin distributions and their discrete approximations*, 1996.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

EnergyOf = Callable[[Tensor], Tensor]  # points, [n, dim] → energies, [n]


class Place(NamedTuple):
    """Where chains stand: points, [n, dim], their energies, [n], and the gradients, [n, dim]."""

    z: Tensor
    energy: Tensor
    gradient: Tensor


def place(energy: EnergyOf, z: Tensor) -> Place:
    """The energies of points and their gradients; no gradient flows on, and no parameter gets one."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        found = energy(z)
        (gradient,) = torch.autograd.grad(found.sum(), z)
    return Place(z.detach(), found.detach(), gradient)


def proposed(at: Place, step: float) -> Tensor:
    """Half a step downhill, and noise of the variance `step`, [n, dim]."""
    return at.z - step / 2 * at.gradient + math.sqrt(step) * torch.randn_like(at.z)


def log_acceptance(at: Place, to: Place, step: float) -> Tensor:
    """ln of π(z') q(z|z') / (π(z) q(z'|z)) with π ∝ exp(−U), [n]; not cut off at 0."""
    return at.energy - to.energy + _log_proposal(to, at, step) - _log_proposal(at, to, step)


def _log_proposal(at: Place, to: Place, step: float) -> Tensor:
    """ln q(to|at) but for a constant, [n]."""
    return -(to.z - at.z + step / 2 * at.gradient).square().sum(1) / (2 * step)


class Ends(NamedTuple):
    """The ends of chains, [n, dim], and the share of proposals that each took, [n]."""

    z: Tensor
    acceptance: Tensor


def langevin(energy: EnergyOf, z: Tensor, num_steps: int, step: float) -> Ends:
    """The ends of unadjusted chains, which take every proposal: of a Gaussian of variance s² they have s²/(1 − ε/4s²).

    They run away where ε is 4s² or more.
    """
    for _ in range(num_steps):
        z = proposed(place(energy, z), step)
    return Ends(z, torch.ones_like(z[:, 0]))


def mala(energy: EnergyOf, z: Tensor, num_steps: int, step: float) -> Ends:
    """The ends of chains that take a proposal with probability min(1, π(z') q(z|z') / π(z) q(z'|z)), so that π is kept exactly.

    A proposal whose energy is not a number is not taken.
    """
    at = place(energy, z)
    taken = torch.zeros_like(at.energy)
    for _ in range(num_steps):
        to = place(energy, proposed(at, step))
        takes = torch.rand_like(at.energy) < log_acceptance(at, to, step).exp()
        at = Place(*(_where(takes, new, old) for new, old in zip(to, at, strict=True)))
        taken += takes
    return Ends(at.z, taken / max(1, num_steps))


def _where(takes: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(takes.view(-1, *[1] * (new.dim() - 1)), new, old)
