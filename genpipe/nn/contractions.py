"""Maps whose Lipschitz constant is below 1, and the residual blocks x + g(x) that they make invertible.

A convolution is divided by its largest singular value as a map of pictures of its own size, where that is above a coefficient:
W / max(1, σ/c) (Gouk, Frank, Pfahringer, Cree, *Regularisation of Neural Networks by Enforcing Lipschitz Continuity*, 2018,
arXiv:1804.04368). σ comes from power iteration with the convolution and its transpose; the matrix [out, in k k] has another one.

In training σ is taken along stored vectors, which `follow` moves after each step; a pass changes nothing. In evaluation it is iterated
from these vectors until it stays, without changing them: a function of what is saved. Power iteration comes from below, so
a norm that is not known well is an inverse that does not converge.

Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen, *Invertible Residual Networks*, 2019, arXiv:1811.00995 (archives/6482).
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from genpipe.errors import BadInput

START, FOLLOW, MOST = 50, 5, 500  # iterations at the start, after a step, and at most in evaluation
STAYS = 1e-6  # relative change of σ
Activation = Literal["lipswish", "elu"]
Shape = tuple[int, int, int]  # of an example: channels, height, width; a point has height and width 1
Apply = Callable[[Tensor], Tensor]


class Inverted(NamedTuple):
    """Where a fixed-point iteration ended, [n, *shape], bounds on the distances from the true inverses, [n], and its steps."""

    x: Tensor
    error: Tensor
    num_steps: int


class BoundedConv(nn.Module):
    """A convolution that keeps height and width, and its parameters as they must be for a largest singular value of c or less."""

    u: Tensor  # [1, in, height, width]

    def __init__(self, shape: Shape, out_channels: int, kernel: int, coefficient: float) -> None:
        super().__init__()
        channels, *size = shape
        like = nn.Conv2d(channels, out_channels, kernel)  # as torch draws them
        self.weight, self.bias = like.weight, cast(nn.Parameter, like.bias)
        self.coefficient, self.padding = coefficient, kernel // 2
        self.register_buffer("u", _unit(torch.randn(1, channels, *size)))
        self.follow(START)

    def frozen(self) -> Apply:
        """The map x, [n, in, height, width] → [n, out, height, width], with one norm for all its uses."""
        weight = self.weight / (self.norm() / self.coefficient).clamp(min=1)
        return lambda x: self._map(x, weight) + self.bias[:, None, None]

    def norm(self) -> Tensor:
        """σ along the singular vectors, which count as constants."""
        u = self.u.clone() if self.training else self._converged()
        with torch.no_grad():
            v = _unit(self._map(u, self.weight))
        return (v * self._map(u, self.weight)).sum()

    @torch.no_grad()
    def follow(self, num: int = FOLLOW) -> None:
        """More iterations, whose vectors are kept."""
        u = self.u
        for _ in range(num):
            u, _ = self._iterate(u)
        self.u.copy_(u)

    @torch.no_grad()
    def _converged(self) -> Tensor:
        u, before = self.u, 0.0
        for _ in range(MOST):
            u, sigma = self._iterate(u)
            if abs(sigma - before) <= STAYS * sigma:
                break
            before = sigma
        return u

    def _iterate(self, u: Tensor) -> tuple[Tensor, float]:
        v = _unit(self._map(u, self.weight))
        back = self._back(v)
        return _unit(back), float(back.norm())

    def _map(self, x: Tensor, weight: Tensor) -> Tensor:
        if x.shape[2:] == (1, 1) and weight.shape[2:] == (1, 1):
            return F.linear(x.flatten(1), weight.flatten(1))[:, :, None, None]
        return F.conv2d(x, weight, padding=self.padding)

    def _back(self, v: Tensor) -> Tensor:
        if v.shape[2:] == (1, 1) and self.weight.shape[2:] == (1, 1):
            return F.linear(v.flatten(1), self.weight.flatten(1).t())[:, :, None, None]
        return conv2d_input(list(self.u.shape), self.weight, v, padding=self.padding)  # pyright: ignore[reportArgumentType]


class LipSwish(nn.Module):
    """x sigmoid(β x) / 1.1, whose slope is 1 at most for every β > 0 (Chen et al., Residual Flows, 2019, arXiv:1906.02735)."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(0.5))  # β = softplus(raw)

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x * torch.sigmoid(F.softplus(self.raw) * x) / 1.1


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"lipswish": LipSwish, "elu": nn.ELU}


class ResidualBlock(nn.Module):
    """x ↦ x + g(x) of examples, [n, channels, height, width], with Lip(g) ≤ `bound`: three convolutions, each with its cube root.

    The kernels are 3×3, 1×1 and 3×3; of points all are 1×1, so linear layers.
    """

    def __init__(self, shape: Shape, width: int, bound: float, activation: Activation) -> None:
        super().__init__()
        self.shape, self.bound = shape, bound
        kernel = 1 if shape[1:] == (1, 1) else 3
        hidden: Shape = (width, *shape[1:])
        sides = ((shape, width, kernel), (hidden, width, 1), (hidden, shape[0], kernel))
        self.convolutions = nn.ModuleList(BoundedConv(*side, bound ** (1 / 3)) for side in sides)
        self.activations = nn.ModuleList(ACTIVATIONS[activation]() for _ in range(2))

    def residual(self) -> Apply:
        """g, with one norm of each convolution for all its uses."""
        first, second, third = (cast(BoundedConv, conv).frozen() for conv in self.convolutions)
        one, two = self.activations
        return lambda x: third(two(second(one(first(x))))).to(x.dtype)

    def follow(self) -> None:
        """Move the singular vectors after a change of the weights."""
        for conv in self.convolutions:
            cast(BoundedConv, conv).follow()

    def inverse(self, y: Tensor) -> Inverted:
        """The x of y = x + g(x), [n, *shape]."""
        with torch.no_grad():
            return fixed_point(self.residual(), y, self.bound)


def fixed_point(residual: Apply, y: Tensor, bound: float) -> Inverted:
    """x with x + residual(x) = y, [n, *shape], by x ← y − residual(x) from x = y, where Lip(residual) ≤ `bound` < 1.

    The error of xⁿ is at most cⁿ/(1−c) ‖x¹ − x⁰‖ and c/(1−c) ‖xⁿ − xⁿ⁻¹‖ (Banach, 1922). A row stops, whatever the others do, when a
    step changes it by rounding only. Rounding may keep it from standing still, but moves it by 1/(1−c) roundings a step at most, which
    is enough after twice the steps that the bound allows. Raises BadInput where a row then moves by more: the bound does not hold.
    """
    least = 2 * torch.finfo(y.dtype).eps * (1 + _norm(y))
    x, moved = y, torch.full_like(least, torch.inf)
    step, most = 0, 2 * steps_to(torch.finfo(y.dtype).eps, bound)
    while step < most:
        step += 1
        goes_on = moved > least
        new = y - residual(x)
        distance = _norm(new - x)
        x = torch.where(goes_on.view(-1, *[1] * (y.dim() - 1)), new, x)
        moved = torch.where(goes_on, distance, moved)
        if not (moved > least).any():  # a step that is no number is larger than nothing
            break
    if (moved.isfinite() & (moved <= least / (1 - bound))).all():
        return Inverted(x, bound / (1 - bound) * moved, step)
    raise BadInput(
        f"the inverse of a residual block does not converge: after {step} steps one still changes an example by "
        f"{float(moved.max()):.3g}, so the block is no contraction by {bound:.4g}; train it longer without an average of weights, or with a "
        "smaller train.network.coefficient"
    )


def steps_to(error: float, bound: float) -> int:
    """Steps of a fixed-point iteration after which its error is at most `error` times the first step: ln(error (1 − c)) / ln c."""
    return math.ceil(math.log(error * (1 - bound)) / math.log(bound))


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm of each row, [n]."""
    return x.flatten(1).norm(dim=1)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp(min=1e-12)
