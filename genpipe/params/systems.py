"""Systems of differential equations by name: their parameters, and their right-hand sides for arrays of any library.

All have the form ẋᵢ = sᵢ xᵢ gᵢ(x) with a sign sᵢ. Su, archives/5643 (competition); Lotka, 1925, and Volterra, 1926 (predator);
Verhulst, 1838 (logistic).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

SystemName = Literal["competition", "logistic", "predator"]


class System(NamedTuple):
    """`growth(groups, x, reverse)` is g, [..., dim], of states x, [..., dim], and of x with its last dimension in reverse.

    `groups(p)` cuts parameters, [..., num_parameters], once for many calls. `units(rate, scales)` are the sizes that parameters have in a
    system whose states are about `scales` and change by about `rate` of themselves in a unit of time.
    """

    coordinates: tuple[str, ...]
    parameters: Mapping[str, float]  # in order, with the values that a data set has by default
    start: tuple[float, ...]  # by default
    signs: tuple[float, ...]
    groups: Callable[[Any], tuple[Any, ...]]
    growth: Callable[[tuple[Any, ...], Any, Any], Any]
    units: Callable[[float, Sequence[float]], tuple[float, ...]]


def _competition(p: tuple[Any, ...], x: Any, reverse: Any) -> Any:
    rate, rivalry, inverse_n = p
    return rate * (1 - inverse_n * x) - rivalry * reverse


def _predator(p: tuple[Any, ...], x: Any, reverse: Any) -> Any:
    rate, meeting = p
    return rate - meeting * reverse


def _logistic(p: tuple[Any, ...], x: Any, reverse: Any) -> Any:
    rate, inverse_n = p
    return rate * (1 - inverse_n * x)


SYSTEMS: dict[str, System] = {
    # ẋ₁ = r₁ x₁ (1 − x₁/N₁) − a₁ x₁ x₂, and the same with 1 and 2 exchanged; inverse_n_1 is 1/N₁
    "competition": System(
        ("first", "second"),
        {"r_1": 0.1, "r_2": 0.3, "a_1": 1e-4, "a_2": 2e-4, "inverse_n_1": 0.002, "inverse_n_2": 0.003},
        (100.0, 150.0),
        (1.0, 1.0),
        lambda p: (p[..., :2], p[..., 2:4], p[..., 4:]),
        _competition,
        lambda rate, s: (rate, rate, rate / s[1], rate / s[0], 1 / s[0], 1 / s[1]),
    ),
    # ẋ = α x − β x y of prey, ẏ = δ x y − γ y of predators
    "predator": System(
        ("prey", "predators"),
        {"alpha": 0.55, "gamma": 0.8, "beta": 0.028, "delta": 0.024},
        (30.0, 4.0),
        (1.0, -1.0),
        lambda p: (p[..., :2], p[..., 2:]),
        _predator,
        lambda rate, s: (rate, rate, rate / s[1], rate / s[0]),
    ),
    # ẋ = r x (1 − x/N)
    "logistic": System(
        ("size",),
        {"r": 0.3, "inverse_n": 0.01},
        (10.0,),
        (1.0,),
        lambda p: (p[..., :1], p[..., 1:]),
        _logistic,
        lambda rate, s: (rate, 1 / s[0]),
    ),
}
