"""Trajectories in time and in the plane of two coordinates, with the observations; and a table of the parameters found."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genpipe.capabilities import Example, Infers
from genpipe.data.loader import Data
from genpipe.sampling.draw import whole
from genpipe.sampling.showing import Row, Showing
from genpipe.sampling.tables import write_table

BAR = (0.16, 0.5, 0.84)  # of the fits: a standard deviation on each side, were they Gaussian
AGREES = 2.0  # times the least error at the observations, for a fit to count as one that found the parameters
EXACT = 1e-4  # of the sizes of the coordinates: below it errors are those of rounding
TIMES = 200  # of a curve
Cells = dict[str, float]  # of a row of a table: column → number


class Bar(NamedTuple):
    """The median over the fits that agree, and its error bar: their 16th and 84th percentile."""

    low: float
    middle: float
    high: float


def relative_error(made: Tensor, x: Example, data: Data) -> Tensor:
    """Root mean square of (made − values) / scales over what is seen, float64 [...], of states made, [..., times, dim]."""
    apart = (made.double() - x["values"].double()) / torch.tensor(data.facts["scales"]).double()
    squares = torch.where(x["seen"], apart.square(), torch.zeros_like(apart))
    return (squares.sum((-2, -1)) / x["seen"].sum().clamp(min=1)).sqrt()


def errors_of(model: Infers, data: Data) -> Tensor:
    """The error of each fit at the observations, float64 [fits]."""
    observed = whole(data, "train")
    with torch.no_grad():
        return relative_error(model.fitted(observed["times"]), observed, data)


def agreeing(model: Infers, data: Data) -> Tensor:
    """Which fits explain the observations about as well as the best one, bool [fits]; others are stuck on their way."""
    errors = errors_of(model, data)
    return errors <= max(AGREES * float(errors.min()), EXACT)


def bars_of(model: Infers, data: Data) -> dict[str, Bar]:
    """Each parameter of a model."""
    kept = agreeing(model, data)
    places = torch.tensor(BAR, dtype=torch.float64)
    with torch.no_grad():
        found = model.parameters_found()
        return {name: Bar(*value[kept].double().quantile(places).tolist()) for name, value in found.items()}


def initial_of(data: Data) -> Tensor:
    """The first state of the data, [1, dim]."""
    return torch.tensor([data.facts["initial_state"]])


def solved(model: Any, data: Data, times: Tensor) -> Tensor:
    """What a model says of the data at times, [times, dim]: of several fits the median of those that agree, at each time."""
    with torch.no_grad():
        if isinstance(model, Infers):
            return model.fitted(times)[agreeing(model, data)].double().quantile(0.5, dim=0)
        return model.trajectory(initial_of(data), times)[0].double()


def trajectories(showing: Showing) -> Iterable[Row]:
    """Each coordinate in time, and two coordinates in the plane."""
    data, names = showing.data, showing.data.facts["coordinates"]
    observed = whole(data, "train")
    others = [whole(data, split) for split in data.splits if split != "train"]
    last = max(float(x["times"].max()) for x in (observed, *others))
    times = torch.linspace(data.facts["first_time"], last, TIMES)
    made = solved(showing.recipe, data, times)
    end = data.facts["last_time"]
    note = f"Lines are the model, dashed ones the rest of the data, dots the {len(observed['times'])} observations, the last at {end:g}."
    _write(showing, "trajectories.tsv", _in_time(names, times, made, observed, others))
    yield Row("trajectories.tsv", "plot", "Trajectories", f"{', '.join(names)} in time. {note}")
    if len(names) > 1:
        _write(showing, "phase.tsv", _in_plane(names, made, observed, others))
        yield Row("phase.tsv", "plot", "Phase plot", f"{names[1]} against {names[0]}. {note}")


def parameters(showing: Showing) -> Iterable[Row]:
    """Parameters found, with error bars, beside those that made the data where these are known."""
    true: Mapping[str, float] = showing.data.facts.get("parameters", {})
    rows = [
        (
            name,
            f"{bar.middle:.4g}",
            f"{bar.low:.4g}",
            f"{bar.high:.4g}",
            f"{true[name]:.4g}" if name in true else "unknown",
        )
        for name, bar in bars_of(showing.recipe, showing.data).items()
    ]
    write_table(showing.directory / "parameters.tsv", ("parameter", "found", "low", "high", "true"), rows)
    kept = agreeing(showing.recipe, showing.data)
    caption = (
        f"The median over the fits that explain the observations about as well as the best one, {int(kept.sum())} of {len(kept)}, and their "
        "16th and 84th percentiles."
    )
    yield Row("parameters.tsv", "table", "Parameters", caption)


def _in_time(
    names: tuple[str, ...], times: Tensor, made: Tensor, observed: Any, others: list[Any]
) -> list[Cells]:
    """A column of times, and for each coordinate what is drawn as a line, dashed, and as dots."""
    rows: list[Cells] = []
    for kind, at, values, seen in _parts(times, made, observed, others):
        for time, state, here in zip(at.tolist(), values.tolist(), seen.tolist(), strict=True):
            cells = {f"{kind} {name}": x for name, x, known in zip(names, state, here, strict=True) if known}
            rows.append({"time": time, **cells})
    return rows


def _in_plane(names: tuple[str, ...], made: Tensor, observed: Any, others: list[Any]) -> list[Cells]:
    """The first coordinate, and the second as a line, dashed, and as dots."""
    empty = torch.zeros(len(made))
    return [
        {names[0]: state[0], f"{kind} {names[1]}": state[1]}
        for kind, _, values, seen in _parts(empty, made, observed, others)
        for state, here in zip(values.tolist(), seen.tolist(), strict=True)
        if here[0] and here[1]
    ]


def _parts(
    times: Tensor, made: Tensor, observed: Any, others: list[Any]
) -> Iterable[tuple[str, Tensor, Tensor, Tensor]]:
    yield "line", times, made, torch.ones_like(made, dtype=torch.bool)
    for x in others:
        yield "dashed", x["times"], x["values"], x["seen"]
    yield "dots", observed["times"], observed["values"], observed["seen"]


def _write(showing: Showing, file: str, rows: list[Cells]) -> None:
    """A table of numbers; nan where a row has none."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[f"{row[name]:.6g}" if name in row else "nan" for name in columns] for row in rows]
    write_table(showing.directory / file, columns, cells)
