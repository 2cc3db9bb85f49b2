"""Techniques on the gradients of a move, one a parameter: clipping in both forms, centralisation, noise."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from genpipe.params.techniques import Centralise, ClipNorm, ClipValue, GradientTechnique, Noise

STEADIER = 1e-6  # what torch's clip_grad_norm_ adds to the norm
SUM = "accumulated"  # the slot of a parameter's sum of gradients in the state of a solver


def clip_coefficient(norm: Tensor, bound: float, form: Literal["hard", "soft"]) -> Tensor:
    """The factor on gradients of this norm: hard min(1, bound/norm), soft bound/(norm + bound).

    Why Gradient Clipping Accelerates Training: A Theoretical Justification for Adaptivity (Zhang, He, Sra & Jadbabaie,
    2020, arXiv:1905.11881). The soft form lies between half the hard one, where norm = bound, and the hard one.
    """
    if form == "soft":
        return bound / (norm + bound)
    return (bound / (norm + STEADIER)).clamp(max=1)


def clip_norm(
    gradients: Sequence[Tensor], bound: float, form: Literal["hard", "soft"]
) -> tuple[list[Tensor], Tensor]:
    """Gradients scaled by their common norm, and that norm before."""
    norm = get_total_norm(gradients)
    coefficient = clip_coefficient(norm, bound, form)
    return [gradient * coefficient for gradient in gradients], norm


def clip_each_norm(gradients: Iterable[Tensor], bound: float, form: Literal["hard", "soft"]) -> list[Tensor]:
    """Gradients scaled each by its own norm."""
    return [clip_norm([gradient], bound, form)[0][0] for gradient in gradients]


def clip_value(gradients: Iterable[Tensor], bound: float) -> list[Tensor]:
    """Gradients with entries in ±bound; this changes their direction."""
    return [gradient.clamp(-bound, bound) for gradient in gradients]


def centralise(gradients: Sequence[Tensor], output_dims: Sequence[int]) -> list[Tensor]:
    """Gradients of matrices and kernels with mean 0 for each output; those of vectors as they are.

    Gradient Centralization: A New Optimization Technique for Deep Neural Networks (Yong, Huang, Hua & Zhang, 2020,
    arXiv:2004.01461).
    """
    return [_centred(g, dim) if g.dim() > 1 else g for g, dim in zip(gradients, output_dims, strict=True)]


def _centred(gradient: Tensor, output_dim: int) -> Tensor:
    others = [dim for dim in range(gradient.dim()) if dim != output_dim]
    return gradient - gradient.mean(others, keepdim=True)


def noise(gradients: Iterable[Tensor], std: float) -> list[Tensor]:
    """Gradients with Gaussian noise from torch's global generator.

    Adding Gradient Noise Improves Learning for Very Deep Networks (Neelakantan et al., 2015, arXiv:1511.06807).
    """
    return [gradient + std * torch.randn_like(gradient) for gradient in gradients]


def transform_gradients(
    techniques: Iterable[GradientTechnique], gradients: list[Tensor], output_dims: Sequence[int]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The gradients after all techniques in their order, and the scalars worth logging that came of it."""
    scalars: dict[str, Tensor] = {}
    for technique in techniques:
        match technique:
            case ClipNorm(bound=bound, form=form, scope="all"):
                gradients, scalars["grad_norm"] = clip_norm(gradients, bound, form)
            case ClipNorm(bound=bound, form=form):
                gradients = clip_each_norm(gradients, bound, form)
            case ClipValue(bound=bound):
                gradients = clip_value(gradients, bound)
            case Centralise():
                gradients = centralise(gradients, output_dims)
            case Noise(std=std):
                gradients = noise(gradients, std)
    return gradients, scalars


class Accumulator:
    """The mean of the gradients and values of so many turns, each weighed by its number of units."""

    def __init__(self, num_turns: int) -> None:
        self._num_turns = num_turns
        self._turns = 0
        self._gradients: list[Tensor] = []
        self._value = self._weight = 0.0

    def add(
        self, gradients: list[Tensor], value: float, weight: float = 1.0
    ) -> tuple[list[Tensor], float] | None:
        """The means, where this is the last of the turns; else None. One turn alone is its own mean, untouched."""
        if self._num_turns == 1:
            return gradients, value
        self._turns += 1
        self._value += value * weight
        self._weight += weight
        if self._turns == 1:
            self._gradients = [gradient * weight for gradient in gradients]
        else:
            torch._foreach_add_(self._gradients, gradients, alpha=weight)
        return self._mean() if self._turns == self._num_turns else None

    def _mean(self) -> tuple[list[Tensor], float]:
        gradients, value = [g / self._weight for g in self._gradients], self._value / self._weight
        self._turns, self._gradients, self._value, self._weight = 0, [], 0.0, 0.0
        return gradients, value

    def state(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The sums so far, where a move is under way; the parameters have these names."""
        if not self._turns:
            return {}
        sums = {f"{name}/{SUM}": g for name, g in zip(names, self._gradients, strict=True)}
        return {
            "turns": torch.tensor(self._turns),
            "value": torch.tensor(self._value, dtype=torch.float64),
            "weight": torch.tensor(self._weight, dtype=torch.float64),
            **sums,
        }

    def load(self, state: dict[str, Tensor], names: Sequence[str], parameters: Sequence[Tensor]) -> None:
        """Take up the sums that `state` gave, where the parameters are."""
        if "turns" in state:
            self._turns = int(state["turns"])
            self._value, self._weight = float(state["value"]), float(state["weight"])
            named = zip(names, parameters, strict=True)
            self._gradients = [state[f"{name}/{SUM}"].to(p, copy=True) for name, p in named]
