"""Optimisers: torch's where it has them, and four that it lacks.

The four take what torch's take (groups of parameters with `lr` and the like) and keep their state as torch's do.
"""

import abc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from genpipe.params.training import Solver

Groups = Iterable[dict[str, Any]]
Closure = Callable[[], float]


class Moving(Optimizer, abc.ABC):
    """What torch asks of the step of an optimiser: the loss of `closure`, where there is one, comes before the move."""

    # Any: torch's two overloads give a float where there is a closure, else nothing
    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Move the parameters along their gradients; the loss, where `closure` gives it."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        self._move(value)
        return value

    @abc.abstractmethod
    def _move(self, value: float | None) -> None: ...


class Momentum(Moving):
    """Momentum whose gradient is taken ahead: v' = momentum v - lr g(theta + lookahead momentum v), theta' = theta + v'.

    lookahead 0 is the heavy ball, 1 Nesterov's method, 1/2 lies between (Su, 2018, archives/5655). The parameters hold the
    point ahead, where the next gradient is taken, not at theta. The velocity has the learning rate in it, so that a change
    of rate acts on new gradients only; torch.optim.SGD rescales the whole velocity, and equals this at constant rate.
    """

    def __init__(
        self, groups: Groups, lr: float, momentum: float, lookahead: float, weight_decay: float
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "lookahead": lookahead, "weight_decay": weight_decay}
        super().__init__(groups, defaults)

    def _move(self, value: float | None) -> None:
        for group, parameter, gradient in _moving(self):
            velocity = _slot(self, parameter, "velocity")
            ahead = group["lookahead"] * group["momentum"]
            parameter.sub_(velocity, alpha=ahead)
            velocity.mul_(group["momentum"]).sub_(_decayed(group, parameter, gradient), alpha=group["lr"])
            parameter.add_(velocity, alpha=1 + ahead)


class RMSpropEpsInside(Moving):
    """torch.optim.RMSprop but for the place of eps: the step is lr g / sqrt(mean square + eps), as in TensorFlow 1.

    With eps outside the root a tiny gradient moves as far as a large one; inside, it moves less. Both start from a mean
    square of 0 and keep the learning rate out of the momentum. From Dynamics to Optimisers: RMSprop (Su, 2018,
    archives/6234), after Lecture 6e (Tieleman & Hinton, 2012).
    """

    def __init__(
        self, groups: Groups, lr: float, alpha: float, eps: float, momentum: float, weight_decay: float
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(groups, defaults)

    def _move(self, value: float | None) -> None:
        for group, parameter, gradient in _moving(self):
            gradient = _decayed(group, parameter, gradient)
            square = _slot(self, parameter, "square_avg")
            square.mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
            move = gradient / (square + group["eps"]).sqrt_()
            if group["momentum"]:
                move = _slot(self, parameter, "momentum_buffer").mul_(group["momentum"]).add_(move)
            parameter.sub_(move, alpha=group["lr"])


class LAMB(Moving):
    """AdamW whose step is rescaled, parameter by parameter, to lr times the norm of the parameter.

    Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes (You et al., 2020, arXiv:1904.00962), with the
    identity for its phi; a parameter or a step of norm 0 is not rescaled.
    """

    def __init__(
        self, groups: Groups, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _move(self, value: float | None) -> None:
        for group, parameter, gradient in _moving(self):
            direction = self._adam(group, parameter, gradient).add_(parameter, alpha=group["weight_decay"])
            lengths, widths = parameter.norm(), direction.norm()
            trust = torch.where((lengths > 0) & (widths > 0), lengths / widths, 1)
            parameter.sub_(direction * trust, alpha=group["lr"])

    def _adam(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> Tensor:
        """The direction of Adam, both moments corrected for their start at 0."""
        (beta1, beta2), state = group["betas"], self.state[parameter]
        mean, square = _slot(self, parameter, "exp_avg"), _slot(self, parameter, "exp_avg_sq")
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        state["step"] = state.get("step", torch.tensor(0.0)) + 1  # on the CPU, as torch keeps it
        count = state["step"].item()
        root = (square / (1 - beta2**count)).sqrt_().add_(group["eps"])
        return mean / (1 - beta1**count) / root


class Polyak(Moving):
    """Steps of lr (L - minimum) min(1/|g|, max_rate) g/|g|, where |g| is the norm of all gradients together.

    With the loss L known to reach `minimum`, L - minimum falls as exp(-lr t). Introduction to Optimization (Polyak, 1987;
    archives/6261). A loss below `minimum` does not move it.
    """

    def __init__(self, groups: Groups, lr: float, minimum: float, max_rate: float) -> None:
        super().__init__(groups, {"lr": lr})
        self.minimum = minimum
        self.max_rate = max_rate

    def _move(self, value: float | None) -> None:
        if value is None:
            raise TypeError("Polyak.step wants a closure that gives the loss")
        moving = list(_moving(self))
        norm = get_total_norm([gradient for _, _, gradient in moving])
        inverse = torch.where(norm > 0, 1 / norm, 0)
        rate = max(value - self.minimum, 0.0) * inverse.clamp(max=self.max_rate) * inverse
        for group, parameter, gradient in moving:
            parameter.sub_(gradient * rate, alpha=group["lr"])


def _moving(optimiser: Optimizer) -> Iterator[tuple[dict[str, Any], Tensor, Tensor]]:
    """The group, the parameter and its gradient, of every parameter that has one."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield group, parameter, parameter.grad


def _slot(optimiser: Optimizer, parameter: Tensor, name: str) -> Tensor:
    """A tensor that an optimiser keeps for a parameter; zeros at first."""
    state = optimiser.state[parameter]
    if name not in state:
        state[name] = torch.zeros_like(parameter)
    return state[name]


def _decayed(group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of the loss + weight_decay/2 |parameter|²."""
    decay = group["weight_decay"]
    return gradient.add(parameter, alpha=decay) if decay else gradient


def make_optimiser(params: Solver, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimiser that `params` names."""
    lr, betas, eps, decay = params.lr, params.betas, params.eps, params.weight_decay
    match params.optimiser:
        case "adam":
            return torch.optim.Adam(groups, lr, betas, eps, decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr, betas, eps, decay, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, lr, params.momentum, weight_decay=decay)
        case "momentum":
            return Momentum(groups, lr, params.momentum, params.lookahead, decay)
        case "rmsprop":
            make = RMSpropEpsInside if params.eps_inside else torch.optim.RMSprop
            return make(groups, lr, params.alpha, eps, weight_decay=decay, momentum=params.momentum)
        case "lamb":
            return LAMB(groups, lr, betas, eps, decay)
        case "polyak":
            return Polyak(groups, lr, params.minimum, params.max_rate)
