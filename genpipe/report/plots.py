"""Plots as inline SVG: sharp at every size, readable by a screen reader, coloured by the page's CSS variables."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from genpipe.report.numerals import figure

WIDTH, HEIGHT = 420, 262  # small, so that text stays legible when a phone shrinks the picture
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 30, 40  # margins of the frame
CLIP = {  # the part of a picture that its marks may cover
    "clip_x": LEFT - 5, "clip_y": TOP, "clip_w": WIDTH - LEFT - RIGHT + 10, "clip_h": HEIGHT - TOP - BOTTOM,
}  # fmt: skip
TICKS = 5


@dataclass(frozen=True)
class Axis:
    """A range of data, the ticks on it, and how a number is placed on [0, 1]."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)


def line_plot(steps: Sequence[float], values: Sequence[float], *, name: str, label: str, unit: str) -> Markup:
    """A training curve: each value faint, a running mean on top; values far outside the rest leave the frame."""
    known = [(x, y) for x, y in zip(steps, values, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not known:
        return Markup("")
    x, y = np.array(known, dtype=np.float64).T
    mean = smoothed(y)
    low, high = _limits(y, mean)
    hidden = int(((y < low) | (y > high)).sum())
    horizontal, vertical = linear_axis(float(min(x[0], 0)), float(x[-1])), linear_axis(low, high)
    marks = Markup("").join(
        [
            path_of(horizontal, vertical, x, y, "raw"),
            path_of(horizontal, vertical, x, mean, "smooth"),
            _end(
                horizontal,
                vertical,
                float(x[-1]),
                float(mean[-1]),
                bool(mean[-1 - len(mean) // 8] > mean[-1]),
            ),
        ]
    )
    shown = f"{label} ({unit})" if unit else label
    described = (
        f"{shown} over {len(x)} points up to step {x[-1]:,.0f}: from {figure(y[0])} to {figure(y[-1])}."
    )
    if hidden:
        described += f" {hidden} of them lie outside the frame."
    return framed(name, f"{label} by step", described, horizontal, vertical, "step", shown, marks)


def zipf_plot(ranks: Sequence[float], counts: Sequence[float], *, name: str) -> Markup:
    """Count against rank on logarithmic axes, beside a line of slope −1."""
    if not ranks:
        return Markup("")
    described = (
        f"The most frequent token occurs {counts[0]:,.0f} times, the one of rank {ranks[-1]:,.0f} {counts[-1]:,.0f} times. "
        "The dashed line has slope −1, Zipf's law."
    )
    return _log_log("Count by rank", ranks, counts, described, ("rank", "count (tokens)"), name, slope=-1)


def growth_plot(tokens: Sequence[float], types: Sequence[float], *, name: str) -> Markup:
    """Distinct tokens against tokens on logarithmic axes (Heaps' law), beside a line of slope 1."""
    if not tokens:
        return Markup("")
    described = (
        f"In {tokens[-1]:,.0f} tokens there are {types[-1]:,.0f} different ones. "
        "The dashed line has slope 1: no token would come twice."
    )
    labels = ("tokens", "types")
    return _log_log("Types by tokens", tokens, types, described, labels, name, slope=1)


def coverage_plot(sizes: Sequence[float], shares: Sequence[float], *, name: str) -> Markup:
    """The share of the text that the most frequent tokens make up, against their number on a logarithmic axis."""
    if not sizes:
        return Markup("")
    x, y = np.log10(np.array(sizes, dtype=np.float64)), 100 * np.array(shares, dtype=np.float64)
    horizontal, vertical = logarithmic_axis(float(x[-1])), linear_axis(0.0, 104.0)
    half = next(size for size, share in zip(sizes, shares, strict=True) if share >= 0.5)
    described = f"About {half:,.0f} tokens make up half of the text, {sizes[-1]:,.0f} all of it."
    marks = path_of(horizontal, vertical, x, y, "smooth")
    title, labels = "Coverage by size of the vocabulary", ("size of the vocabulary", "share of the text (%)")
    return framed(name, title, described, horizontal, vertical, *labels, marks)


def lengths_plot(lengths: Sequence[float], documents: Sequence[float], *, name: str) -> Markup:
    """Documents a length against length in tokens, on logarithmic axes; empty documents are only counted.

    From 100 tokens on, a length stands for all that share its first two digits; their number divides the documents.
    """
    pairs = [
        (x, y / max(1, 10 ** (len(f"{x:.0f}") - 2)))
        for x, y in zip(lengths, documents, strict=True)
        if x >= 1
    ]
    if not pairs:
        return Markup("")
    shown, numbers = zip(*pairs, strict=True)
    empty = sum(y for x, y in zip(lengths, documents, strict=True) if x < 1)
    described = f"Documents of {shown[0]:,.0f} to {shown[-1]:,.0f} tokens; {empty:,.0f} are empty."
    labels = ("tokens of a document", "documents of a length")
    low = [max(number, 1) for number in numbers]  # the axis begins at 1
    return _log_log("Documents by length", shown, low, described, labels, name)


def scatter_plot(x: Sequence[float], y: Sequence[float] | None = None, *, name: str, title: str) -> Markup:
    """Points in the plane, at most 1,000 of them; those of one coordinate against their number."""
    first = np.array(x[:1000], dtype=np.float64)
    second = (
        np.array(y[:1000], dtype=np.float64) if y is not None else np.arange(len(first), dtype=np.float64)
    )
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    if not len(first):
        return Markup("")
    horizontal, vertical = (linear_axis(*range_of(values)) for values in (first, second))
    dots = [
        (to_x(horizontal, float(a)), to_y(vertical, float(b))) for a, b in zip(first, second, strict=True)
    ]
    marks = Markup("").join(
        Markup('<circle class="point" cx="{:.1f}" cy="{:.1f}" r="1.5"/>').format(*d) for d in dots
    )
    return framed(name, title, f"{len(dots):,} points.", horizontal, vertical, "x", "y", marks)


def _log_log(
    title: str,
    x_values: Sequence[float],
    y_values: Sequence[float],
    described: str,
    labels: tuple[str, str],
    name: str,
    slope: int | None = None,
) -> Markup:
    """A curve on logarithmic axes, beside a line of that slope through its middle."""
    x, y = np.log10(np.array(x_values, dtype=np.float64)), np.log10(np.array(y_values, dtype=np.float64))
    horizontal, vertical = logarithmic_axis(float(x[-1])), logarithmic_axis(float(y.max()))
    marks = path_of(horizontal, vertical, x, y, "smooth")
    if slope is not None:
        law, middle = np.array([0.0, float(x[-1])]), len(x) // 2
        marks = path_of(horizontal, vertical, law, y[middle] + slope * (law - x[middle]), "law") + marks
    return framed(name, title, described, horizontal, vertical, *labels, marks)


def strip(value: float, baselines: Sequence[float], *, reverse: bool) -> Markup | None:
    """A dot for `value` on a line with a tick for each baseline; `reverse` puts low numbers on the right."""
    others = [x for x in baselines if math.isfinite(x)]
    low, high = min([value, *others]), max([value, *others])
    if not math.isfinite(value) or low == high:
        return None
    place = lambda x: 6 + 148 * ((high - x if reverse else x - low) / (high - low))
    ticks = Markup("").join(Markup('<path class="tick" d="M{0:.1f} 3v12"/>').format(place(x)) for x in others)
    return Markup(
        '<svg class="strip" viewBox="0 0 160 18" aria-hidden="true"><path class="rule" d="M6 9h148"/>{}'
        '<circle class="dot" cx="{:.1f}" cy="9" r="5"/></svg>'
    ).format(ticks, place(value))


def smoothed(values: np.ndarray) -> np.ndarray:
    """A Gaussian running mean, [n], as wide as a fortieth of the curve; the ends average what there is."""
    reach = math.ceil(3 * max(len(values) / 40, 0.5))
    weights = np.exp(-0.5 * (3 * np.arange(-reach, reach + 1) / reach) ** 2)
    mean = lambda x: np.convolve(x, weights)[reach : reach + len(x)]
    return mean(values) / mean(np.ones(len(values)))


def linear_axis(low: float, high: float) -> Axis:
    """An axis with some five round ticks inside [low, high]."""
    if high <= low:
        low, high = low - 0.5, low + 0.5
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    decimals = max(0, (step / power == 2.5) - math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [(i * step, f"{i * step:,.{decimals}f}".replace("-", "−")) for i in range(first, last + 1)]
    return Axis(low, high, tuple(ticks))


def logarithmic_axis(top: float) -> Axis:
    """An axis of decimal logarithms from 0 to just above `top`, a tick at each power of ten."""
    high = max(top * 1.02, 0.5)
    names = ["1", "10", "100", "1k", "10k", "100k", "1M", "10M", "100M"]
    return Axis(0.0, high, tuple((float(i), names[i]) for i in range(min(len(names), math.floor(high) + 1))))


def _limits(values: np.ndarray, mean: np.ndarray) -> tuple[float, float]:
    """The range to show: most values and the end of the mean; the steep first steps of a training may leave it."""
    low, high = np.quantile(values, [0.01, 0.97])
    low, high = min(low, mean[-1]), max(high, mean[-1])
    if np.ptp(values) <= 1.5 * (high - low):
        low, high = values.min(), values.max()
    room = 0.06 * (high - low) or 0.5
    return float(low - room), float(high + room)


def range_of(values: np.ndarray) -> tuple[float, float]:
    """The range of all values, with some room."""
    room = 0.04 * float(np.ptp(values)) or 0.5
    return float(values.min()) - room, float(values.max()) + room


def to_x(axis: Axis, value: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * axis.place(value)


def to_y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * axis.place(value)


def path_of(horizontal: Axis, vertical: Axis, x: np.ndarray, y: np.ndarray, kind: str) -> Markup:
    points = [f"{to_x(horizontal, a):.1f} {to_y(vertical, b):.1f}" for a, b in zip(x, y, strict=True)]
    return Markup('<path class="{}" d="M{}"/>').format(kind, "L".join(points))


def _end(horizontal: Axis, vertical: Axis, x: float, y: float, falling: bool) -> Markup:
    """A dot where the curve ends, and its value on the side that the curve does not come from."""
    left, top = to_x(horizontal, x), to_y(vertical, y)
    below = top < TOP + 24 or (falling and top < HEIGHT - BOTTOM - 24)
    return Markup(
        '<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3.5"/>'
        '<text class="end" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(left, top, left, top + 20 if below else top - 10, figure(y))


def framed(
    name: str,
    title: str,
    described: str,
    horizontal: Axis,
    vertical: Axis,
    x_label: str,
    y_label: str,
    marks: Markup,
) -> Markup:
    """Frame, ticks and labels around `marks`, which an inner picture cuts off at the frame."""
    identifier = _identifier(name)
    return Markup(
        '<svg class="plot" viewBox="0 0 {w} {h}" role="img" aria-labelledby="{i}-title {i}-desc">'
        '<title id="{i}-title">{title}</title><desc id="{i}-desc">{described}</desc>'
        '{rows}{columns}<text class="label" x="0" y="14">{y_label}</text>'
        '<text class="label" x="{right}" y="{bottom}" text-anchor="end">{x_label}</text>'
        '<svg id="{i}-marks" x="{clip_x}" y="{clip_y}" width="{clip_w}" height="{clip_h}" viewBox="{clip_x} {clip_y} {clip_w} {clip_h}">{marks}</svg>'
        "</svg>"
    ).format(
        w=WIDTH, h=HEIGHT, i=identifier, title=title, described=described, x_label=x_label, y_label=y_label,
        rows=Markup("").join(_row_tick(to_y(vertical, value), text) for value, text in vertical.ticks),
        columns=Markup("").join(_column_tick(to_x(horizontal, value), text) for value, text in horizontal.ticks),
        right=WIDTH - RIGHT, bottom=HEIGHT - 4, marks=marks, **CLIP,
    )  # fmt: skip


def thumbnail(name: str) -> Markup:
    """The marks of the plot of this name, small, without its frame; the page has the plot elsewhere."""
    return Markup(
        '<svg class="thumbnail" viewBox="{clip_x} {clip_y} {clip_w} {clip_h}" aria-hidden="true"><use href="#{i}-marks"/></svg>'
    ).format(i=_identifier(name), **CLIP)


def _identifier(name: str) -> str:
    return "plot-" + re.sub(r"[^a-z0-9]+", "-", name.lower())


def _row_tick(top: float, text: str) -> Markup:
    return Markup(
        '<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(LEFT, top, WIDTH - RIGHT, LEFT - 7, top + 4, text)


def _column_tick(left: float, text: str) -> Markup:
    anchor = "end" if left > WIDTH - RIGHT - 12 else "middle"
    return Markup(
        '<path class="grid" d="M{:.1f} {}v4"/><text x="{:.1f}" y="{}" text-anchor="{}">{}</text>'
    ).format(left, HEIGHT - BOTTOM, left, HEIGHT - BOTTOM + 17, anchor, text)
