"""Plots of several curves: lines, dashed lines and dots, as panels of trajectories write them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from genpipe.report.plots import Axis, framed, linear_axis, path_of, range_of, to_x, to_y

Array = np.ndarray[Any, np.dtype[np.float64]]
FORMS = ("line", "dashed", "dots")
CLASSES = {"line": "smooth", "dashed": "law"}
SECOND = " other"  # of the second curve of a form and others: another colour


def are_curves(columns: Sequence[str]) -> bool:
    """Whether the columns of a table are those of curves: an x, and others named FORM NAME."""
    return len(columns) > 1 and all(column.partition(" ")[0] in FORMS for column in columns[1:])


def curves_plot(columns: Mapping[str, Sequence[float]], *, name: str, title: str) -> Markup:
    """The first column is horizontal; of each other one, FORM NAME, the finite rows are drawn; nothing where there are none."""
    label, *others = columns
    x = np.array(columns[label], dtype=np.float64)
    curves = {column: _finite(x, np.array(columns[column], dtype=np.float64)) for column in others}
    curves = {column: curve for column, curve in curves.items() if len(curve[0])}
    if not curves:
        return Markup("")
    horizontal, vertical = (
        linear_axis(*range_of(np.concatenate([curve[axis] for curve in curves.values()]))) for axis in (0, 1)
    )
    names = list(dict.fromkeys(column.partition(" ")[2] for column in curves))
    marks = Markup("").join(
        _marks(horizontal, vertical, curve, column.partition(" ")[0], names.index(column.partition(" ")[2]))
        for column, curve in sorted(curves.items(), key=lambda item: -FORMS.index(item[0].partition(" ")[0]))
    )
    if len(names) > 1:
        marks += Markup("").join(
            _label(horizontal, vertical, curves[f"line {each}"], each, number)
            for number, each in enumerate(names)
            if f"line {each}" in curves
        )
    described = "; ".join(f"{column}: {len(curve[0]):,} points" for column, curve in curves.items()) + "."
    return framed(name, title, described, horizontal, vertical, label, ", ".join(names), marks)


def _finite(x: Array, y: Array) -> tuple[Array, Array]:
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _marks(horizontal: Axis, vertical: Axis, curve: tuple[Array, Array], form: str, number: int) -> Markup:
    """One curve."""
    other = SECOND if number else ""
    x, y = curve
    if form != "dots":
        return path_of(horizontal, vertical, x, y, CLASSES[form] + other)
    return Markup("").join(
        Markup('<circle class="dot{}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(
            other, to_x(horizontal, a), to_y(vertical, b)
        )
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
    )


def _label(horizontal: Axis, vertical: Axis, curve: tuple[Array, Array], name: str, number: int) -> Markup:
    """The name of a curve above its end."""
    x, y = float(curve[0][-1]), float(curve[1][-1])
    return Markup('<text class="end{}" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>').format(
        SECOND if number else "", to_x(horizontal, x), to_y(vertical, y) - 8, name
    )
