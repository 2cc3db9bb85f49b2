"""The metrics of a recipe, ready to be shown."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from genpipe.metrics import BASELINE_SUFFIXES, METRICS, Direction, explained
from genpipe.report.numerals import figure
from genpipe.report.plots import strip

DIRECTIONS: dict[Direction, str] = {
    "minimise": "↓ lower is better",
    "maximise": "↑ higher is better",
    "as real": "≈ as in real data",
    "": "",
}


@dataclass(frozen=True)
class Row:
    """A metric ready to be shown."""

    label: str
    value: str
    unit: str
    direction: str
    explanation: str
    baselines: tuple[tuple[str, str], ...]  # what it is, value
    strip: Markup | None  # where the value lies among its baselines


def rows(values: Mapping[str, float]) -> list[Row]:
    """Every metric in `values` once: as a row of its own, or beside the one it is a baseline of."""
    return [_row(name, values[name], beside) for name, beside in arranged(values)]


def arranged(values: Mapping[str, float]) -> list[tuple[str, dict[str, float]]]:
    """The metrics that are no baselines of others, the most important first, each with what stands beside it."""
    beside = {name: _baselines_of(name, values) for name in values}
    used = {other for baselines in beside.values() for other in baselines}
    order = [name for name in sorted(values, key=_place) if name not in used]
    return [
        (
            name,
            {label: values[other] for other, label in beside[name].items()} | dict(explained(name).constants),
        )
        for name in order
    ]


def _place(name: str) -> tuple[int, str]:
    """The metrics of the table in its order, those of other splits after them."""
    return (list(METRICS).index(name) if name in METRICS else len(METRICS)), name


def key_metric(shown: list[Row]) -> Row | None:
    """The one number of a recipe: the first."""
    return shown[0] if shown else None


def _baselines_of(name: str, values: Mapping[str, float]) -> dict[str, str]:
    """The metrics that are shown beside `name`, and what they are."""
    split = name.rpartition(".")[0]
    by_suffix = {name + suffix: label for suffix, label in BASELINE_SUFFIXES.items()}
    of_table = {
        f"{split}.{other}" if split else other: label for other, label in explained(name).baselines.items()
    }
    return {other: label for other, label in {**by_suffix, **of_table}.items() if other in values}


def _row(name: str, value: float, beside: Mapping[str, float]) -> Row:
    metric = explained(name)
    return Row(
        metric.label,
        figure(value, metric.unit),
        metric.unit,
        DIRECTIONS[metric.direction],
        metric.explanation,
        tuple((label, figure(x, metric.unit)) for label, x in beside.items()),
        strip(value, list(beside.values()), reverse=metric.direction == "minimise"),
    )
