"""Explicit one-step methods for ẋ = f(t, x), batched and differentiable: a step is the cell of a recurrent network.

Euler, 1768; Heun, 1900; Kutta, 1901; as recurrent networks: Su, archives/5643. `rk4` is the classical rule of weights 1/6, 1/3, 1/3,
1/6; torchdiffeq's method of that name is Kutta's rule of 3/8.

    >>> growth = lambda t, x: x
    >>> x = torch.ones(1, dtype=torch.float64)
    >>> [round(solve(method, growth, x, 0, 0.1, 10)[-1].item(), 4) for method in (euler, heun, rk4)]  # e = 2.7183
    [2.5937, 2.7141, 2.7183]
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Derivative = Callable[[Tensor | float, Tensor], Tensor]  # f(t, x), of the shape of x
Method = Callable[[Derivative, Tensor | float, Tensor, Tensor | float], Tensor]  # f, t, x, h → x at t + h
MethodName = Literal["euler", "heun", "rk4"]


def euler(f: Derivative, t: Tensor | float, x: Tensor, h: Tensor | float) -> Tensor:
    """x + h f(t, x); the error of a whole solution is of order h."""
    return x + h * f(t, x)


def heun(f: Derivative, t: Tensor | float, x: Tensor, h: Tensor | float) -> Tensor:
    """The mean of the slopes at both ends of an Euler step; the error of a whole solution is of order h²."""
    first = f(t, x)
    second = f(t + h, x + h * first)
    return x + h / 2 * (first + second)


def rk4(f: Derivative, t: Tensor | float, x: Tensor, h: Tensor | float) -> Tensor:
    """The classical method of Runge and Kutta; the error of a whole solution is of order h⁴."""
    half = h / 2
    first = f(t, x)
    second = f(t + half, x + half * first)
    third = f(t + half, x + half * second)
    fourth = f(t + h, x + h * third)
    return x + h / 6 * (first + 2 * (second + third) + fourth)


METHODS: dict[str, Method] = {"euler": euler, "heun": heun, "rk4": rk4}


def solve(method: Method, f: Derivative, x: Tensor, start: float, step: float, num_steps: int) -> Tensor:
    """States at start, start + step, …: [num_steps + 1, *x.shape] from the state `x` at the time `start`."""
    states = [x]
    for number in range(num_steps):
        states.append(method(f, start + number * step, states[-1], step))
    return torch.stack(states)


def states_at(
    method: Method, f: Derivative, x: Tensor, start: float, step: float, times: Tensor, num_steps: int
) -> Tensor:
    """States at `times`, [times], each at `start` or later: [times, *x.shape], from the state `x` at the time `start`.

    From the last of `num_steps` equal steps before a time a shorter one leads to it, so the error is of the order of the method at
    any time. A time that is later than all steps has a longer one.
    """
    grid = solve(method, f, x, start, step, num_steps)
    whole = ((times - start) / step).floor().clamp(0, num_steps)
    before = (start + whole * step).view(-1, *[1] * x.dim())
    rest = times.view_as(before) - before
    return method(f, before, grid[whole.long()], rest)
