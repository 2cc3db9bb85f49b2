"""The plot of a sweep: the metric of each trial against each parameter that was varied, as one SVG file."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from genpipe.report.numerals import figure
from genpipe.report.plots import Axis, linear_axis

WIDTH, HEIGHT = 360, 260  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 44  # margins of its frame
INK, GRID, DOT, BEST = "#222222", "#dddddd", "#3465a4", "#cc3311"


def sweep_plot(rows: Sequence[Mapping[str, Any]], parameters: Sequence[str], metric: str) -> str:
    """A panel for each parameter, its values evenly spaced in order; `rows` come best first and have the metric."""
    values = [float(row[metric]) for row in rows]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.5
    vertical = linear_axis(low - room, high + room)
    panels = [_panel(rows, name, metric, vertical, WIDTH * number) for number, name in enumerate(parameters)]
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            'height="{height}" role="img" font-family="sans-serif" font-size="12" fill="{ink}">'
            "<title>{metric} of {number} trials</title><desc>The best trial has {best}.</desc>"
            '<rect width="100%" height="100%" fill="white"/>{panels}</svg>\n'
        ).format(
            width=WIDTH * len(parameters), height=HEIGHT, ink=INK, metric=metric, number=len(rows),
            best=figure(values[0]), panels=Markup("").join(panels),
        )
    )  # fmt: skip


def _panel(
    rows: Sequence[Mapping[str, Any]], parameter: str, metric: str, vertical: Axis, left: int
) -> Markup:
    values = _in_order([row[parameter] for row in rows])
    across = lambda value: LEFT + (WIDTH - LEFT - RIGHT) * (values.index(value) + 0.5) / len(values)
    up = lambda value: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * vertical.place(value)
    rules = [_rule(up(value), text) for value, text in vertical.ticks]
    ticks = [_tick(across(value), str(value)) for value in values]
    dots = [_dot(across(row[parameter]), up(float(row[metric])), row is rows[0]) for row in rows]
    return Markup(
        '<g transform="translate({left} 0)">{marks}<text x="4" y="18">{metric}</text>'
        '<text x="{right}" y="{bottom}" text-anchor="end">{parameter}</text></g>'
    ).format(
        left=left, marks=Markup("").join([*rules, *ticks, *reversed(dots)]),  # the best is drawn last, on top
        metric=metric, right=WIDTH - RIGHT, bottom=HEIGHT - 6, parameter=parameter,
    )  # fmt: skip


def _in_order(values: Sequence[Any]) -> list[Any]:
    """The different values: numbers by size, anything else by its text."""
    different = [value for number, value in enumerate(values) if value not in values[:number]]
    are_numbers = all(isinstance(value, int | float) for value in different)
    return sorted(different, key=None if are_numbers else str)


def _rule(top: float, text: str) -> Markup:
    return Markup(
        '<path stroke="{}" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(GRID, LEFT, top, WIDTH - RIGHT, LEFT - 6, top + 4, text)


def _tick(left: float, text: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        left, HEIGHT - BOTTOM + 17, text
    )


def _dot(left: float, top: float, is_best: bool) -> Markup:
    radius, colour = (6, BEST) if is_best else (4, DOT)
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}" fill-opacity="0.8"/>').format(
        left, top, radius, colour
    )
