"""Trajectories: solutions of a known system of differential equations, observed at few times, and tables of a person.

Solutions are those of SciPy's DOP853 at a relative tolerance of 10⁻¹², so of a method and of code that no model here has.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genpipe.errors import BadInput
from genpipe.params.systems import SYSTEMS, System
from genpipe.params.trajectories import Equation, TrajectoryFile
from genpipe.sources.prepared import Prepared

Array = NDArray[np.float64]
TOLERANCE = 1e-12
SEPARATORS = {".csv": ",", ".tsv": "\t"}


class Observed(NamedTuple):
    """Times, [n], and states, [n, dim], NaN where nothing was observed."""

    times: Array
    values: Array


def prepare_equation(source: Path, directory: Path, dataset: Equation) -> Prepared:
    """Write observations of a system as the split train, its solution between them as test, and after them as later."""
    system = SYSTEMS[dataset.system]
    parameters = {**system.parameters, **dataset.parameters}
    start = np.array(dataset.start or system.start)
    times, until = np.array(dataset.times), dataset.until or 2 * dataset.times[-1]
    dense = np.linspace(0, times[-1], dataset.num_test + 1)[1:]
    later = np.linspace(times[-1], until, dataset.num_test + 1)[1:]
    values = np.array(list(parameters.values()))
    all_times = np.concatenate([times, dense, later])
    if dataset.euler_step:
        truth = by_euler(system, values, start, all_times, dataset.euler_step)
    else:
        truth = solution(system, values, start, all_times)
    observed, between, after = np.split(truth, np.cumsum([len(times), len(dense)]))
    observed = observed * (1 + dataset.noise * _normal(dataset.seed, observed.shape))
    if dataset.decimals is not None:
        observed = observed.round(dataset.decimals)
    sides = {
        "train": Observed(times, observed),
        "test": Observed(dense, between),
        "later": Observed(later, after),
    }
    facts = {"system": dataset.system, "parameters": parameters}
    return _written(directory, sides, Observed(np.zeros(1), start[None]), system.coordinates, facts)


def solution(system: System, parameters: Array, start: Array, times: Array) -> Array:
    """States, [times, dim], at times after 0, in any order, from `start`, [dim], at the time 0.

    Raises BadInput if the solution ends before the last time.
    """
    from scipy.integrate import solve_ivp  # here: no other stage waits for SciPy

    derivative = _derivative(system, parameters)
    places, where = np.unique(times, return_inverse=True)
    found = solve_ivp(
        derivative, (0, places[-1]), start, "DOP853", t_eval=places, rtol=TOLERANCE, atol=TOLERANCE
    )
    if not found.success:
        raise BadInput(
            f"the system has no solution up to the time {places[-1]:g}: {found.message} Change its parameters or its times"
        )
    return found.y.T[where]


def by_euler(system: System, parameters: Array, start: Array, times: Array, step: float) -> Array:
    """States as those of `solution`, by Euler's method; between two steps on the straight line from one to the next."""
    derivative = _derivative(system, parameters)
    states = [start]
    for _ in range(math.ceil(times.max() / step - 1e-9)):
        states.append(states[-1] + step * derivative(0, states[-1]))
    grid = step * np.arange(len(states))
    return np.stack([np.interp(times, grid, column) for column in np.stack(states, 1)], 1)


def _derivative(system: System, parameters: Array) -> Callable[[float, Array], Array]:
    groups, signs = system.groups(parameters), np.array(system.signs)
    return lambda t, x: signs * x * system.growth(groups, x, x[::-1])


def prepare_table(source: Path, directory: Path, dataset: TrajectoryFile) -> Prepared:
    """Write the rows of a table as the splits train, test (every few rows between) and later (the last rows)."""
    names, table = _read(source, dataset.time)
    num_later = round(dataset.later_share * len(table.times))
    number = len(table.times) - num_later
    is_test = (np.arange(number) % dataset.test_every == dataset.test_every // 2) & (
        np.arange(number) < number - 1
    )
    sides = {
        "train": Observed(table.times[:number][~is_test], table.values[:number][~is_test]),
        "test": Observed(table.times[:number][is_test], table.values[:number][is_test]),
    }
    if num_later:
        sides["later"] = Observed(table.times[number:], table.values[number:])
    if len(sides["train"].times) < 3 or not len(sides["test"].times):
        raise BadInput(
            f"{source}: {len(table.times)} rows leave {len(sides['train'].times)} to train and {len(sides['test'].times)} to test; "
            "add rows, or change datasets.*.test_every and later_share"
        )
    return _written(directory, sides, Observed(table.times[:1], table.values[:1]), names, {})


def _written(
    directory: Path,
    sides: Mapping[str, Observed],
    start: Observed,
    names: Sequence[str],
    more: Mapping[str, Any],
) -> Prepared:
    """Write the arrays of each split; the first state is a fact."""
    counts: dict[str, int] = {}
    for split, (times, values) in sides.items():
        for name, array in (
            (f"{split}_times.npy", times),
            (f"{split}_values.npy", values.astype(np.float32)),
        ):
            np.save(directory / name, array)
            counts[name] = len(array)
    train = np.concatenate([start.values, sides["train"].values])
    facts = {
        "dim": len(names),
        "initial_state": start.values[0].tolist(),
        "first_time": float(start.times[0]),
        "last_time": float(sides["train"].times[-1]),
        "scales": [float(f"{scale:.9g}") for scale in np.sqrt(np.nanmean(train**2, axis=0))],
        "num_observations": len(sides["train"].times),
        "coordinates": list(names),
    }
    return Prepared(tuple(sides), facts | dict(more), counts, {})


def _normal(seed: int, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers, a function of the seed."""
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape)


def _read(source: Path, time: str | None) -> tuple[list[str], Observed]:
    """The names of the coordinates, and all rows of a table. Raises BadInput if it is not a table of times and numbers."""
    if source.suffix not in SEPARATORS:
        raise BadInput(f"{source}: not a .csv or .tsv file; name one as the source")
    try:
        frame = pl.read_csv(source, separator=SEPARATORS[source.suffix], infer_schema_length=None)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise BadInput(f"{source}: not a table: {str(error).splitlines()[0]}; fix it") from None
    time = frame.columns[0] if time is None else time
    if time not in frame.columns:
        raise BadInput(f"{source}: no column {time!r}; it has: {', '.join(frame.columns)}")
    names = [name for name in frame.columns if name != time]
    texts = [name for name in frame.columns if len(frame) and not frame.schema[name].is_numeric()]
    if texts or not names:
        raise BadInput(
            f"{source}: {f'the column {texts[0]!r} holds no numbers' if texts else 'no column beside the times'}; a table has a column of "
            "times and one for each coordinate"
        )
    values = frame.select(names).cast(pl.Float64).to_numpy().astype(np.float64)
    table = Observed(frame[time].cast(pl.Float64).to_numpy().astype(np.float64), values)
    _require_trajectory(source, table, names)
    return names, table


def _require_trajectory(source: Path, table: Observed, names: Sequence[str]) -> None:
    """Raise BadInput where times do not ascend, or values are not finite, or the first row has gaps."""
    bad = np.flatnonzero(~np.isfinite(table.times))
    if len(bad):
        raise BadInput(f"{source}: row {bad[0]} (from 0) has no time; fix it")
    bad = np.flatnonzero(np.diff(table.times) <= 0)
    if len(bad):
        raise BadInput(
            f"{source}: the time of row {bad[0] + 1} (from 0) is not after that of the row before; sort the rows"
        )
    bad = np.flatnonzero(np.isinf(table.values.astype(np.float32)).any(1))
    if len(bad):
        raise BadInput(f"{source}: row {bad[0]} (from 0) holds a value that is infinite; fix it")
    if not len(table.times):
        raise BadInput(f"{source}: no rows below the header; add the observations")
    gaps = [name for name, value in zip(names, table.values[0], strict=True) if np.isnan(value)]
    if gaps:
        raise BadInput(
            f"{source}: the first row has no {gaps[0]}; the trajectory begins there, so it must be whole"
        )
    for name, column in zip(names, table.values.T, strict=True):
        if not np.nan_to_num(column).any():
            raise BadInput(f"{source}: the column {name!r} is zero everywhere; remove it")
