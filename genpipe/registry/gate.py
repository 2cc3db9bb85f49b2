"""Whether a new model may replace the one in production: its metrics against the rules of params.yaml."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genpipe.errors import BadInput, BadState
from genpipe.params.promotion import Rule


@dataclass(frozen=True)
class Judged:
    """A model's metrics, and the hashes of what they were measured by."""

    name: str
    metrics: Mapping[str, float]
    yardstick: Mapping[str, str]


@dataclass(frozen=True)
class Check:
    """One rule, whether it holds, and by how much, in words."""

    metric: str
    passed: bool
    why: str


@dataclass(frozen=True)
class Verdict:
    """What the rules say of a new model; `note` tells when it could not be compared with production."""

    checks: tuple[Check, ...]
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return all(check.passed for check in self.checks)

    def describe(self) -> str:
        """One line: the rules that fail, or all of them when none does."""
        shown = [check for check in self.checks if not check.passed] or self.checks
        return "; ".join([*(check.why for check in shown), *([self.note] if self.note else [])])


def gate(new: Judged, production: Judged | None, rules: Sequence[Rule]) -> Verdict:
    """Judge a new model. Gains count only where both were measured by the same things; else the bounds alone decide."""
    if production is None:
        return Verdict(_checks(new, None, rules), "the first in production, so that only bounds count")
    changed = _differences(new, production)
    if changed:
        note = f"not compared with {production.name}, measured by another state of {', '.join(changed)}"
        return Verdict(_checks(new, None, rules), note)
    return Verdict(_checks(new, production, rules))


def _differences(new: Judged, production: Judged) -> list[str]:
    paths = sorted({*new.yardstick, *production.yardstick})
    return [path for path in paths if new.yardstick.get(path) != production.yardstick.get(path)]


def _checks(new: Judged, rival: Judged | None, rules: Sequence[Rule]) -> tuple[Check, ...]:
    checks: list[Check] = []
    for rule in rules:
        value = value_of(new, rule.metric)
        if not math.isfinite(value):  # no proof of anything, and nothing could ever be better than -inf
            checks.append(Check(rule.metric, False, f"{rule.metric} is {value:g}, must be a finite number"))
            continue
        if rule.bound is not None:
            checks.append(_bound_check(rule, value, rule.bound))
        if rule.min_gain is not None and rival and math.isfinite(rival.metrics.get(rule.metric, math.nan)):
            checks.append(_gain_check(rule, value, rival, rule.min_gain))
    return tuple(checks)


def _bound_check(rule: Rule, value: float, bound: float) -> Check:
    margin = rule.gain(value, bound)
    word = "at least" if rule.is_maximised else "at most"
    return Check(
        rule.metric,
        margin >= 0,
        f"{rule.metric} is {value:g}, must be {word} {bound:g}{_missed(margin)}",
    )


def _gain_check(rule: Rule, value: float, rival: Judged, wanted: float) -> Check:
    before = rival.metrics[rule.metric]
    gain = float(f"{rule.gain(value, before):.9g}")  # metrics have six digits; 0.3 - 0.2 is a gain of 0.1
    return Check(
        rule.metric,
        gain >= wanted,
        f"{rule.metric} is {value:g}, {rival.name} has {before:g}: a gain of {gain:g}, must be at least {wanted:g}"
        f"{_missed(gain - wanted)}",
    )


def _missed(margin: float) -> str:
    return "" if margin >= 0 else f" (missed by {-margin:g})"


def value_of(judged: Judged, metric: str) -> float:
    """A metric of a model, or the error that lists those it has."""
    if metric not in judged.metrics:
        raise BadInput(
            f"params.yaml: promotion: {judged.name} has no metric {metric!r} (has: {', '.join(sorted(judged.metrics))})"
        )
    return judged.metrics[metric]


def metrics_in(text: bytes | None, where: str) -> dict[str, float]:
    """The metrics in the bytes of a file that `genpipe evaluate` wrote; what is no number is no metric, no file has none."""
    try:
        values = json.loads(text or b"{}").items()
    except (ValueError, AttributeError):
        raise BadState(f"{where}: not JSON with a number for each metric; evaluate the model again") from None
    return {name: value for name, value in values if type(value) in (int, float)}
