"""A table of trials: as a file, as an artifact of Prefect, and as lines on a terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_table_artifact

from genpipe.files import new_file

Row = Mapping[str, Any]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column that a row has, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def has_value(row: Row, metric: str) -> bool:
    """Whether a row has a finite number for a metric; a training that diverged has none."""
    value = row.get(metric)
    return isinstance(value, int | float) and math.isfinite(value)


def sorted_by(rows: Sequence[dict[str, Any]], metric: str, maximise: bool) -> list[dict[str, Any]]:
    """The best first; those without a value last, in the order in which they came."""
    known = [row for row in rows if has_value(row, metric)]
    best_first = sorted(known, key=lambda row: row[metric], reverse=maximise)
    return [*best_first, *(row for row in rows if not has_value(row, metric))]


def keep_table(rows: Sequence[Row], path: Path, key: str, description: str) -> None:
    """Write tab-separated values to `path`, and the same as the table artifact `key` of the current run."""
    columns = columns_of(rows)
    lines = [columns, *([_text(row.get(name, "")) for name in columns] for row in rows)]
    with new_file(path) as partial:
        partial.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    create_table_artifact(
        [{name: _plain(row.get(name, "")) for name in columns} for row in rows], key, description
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else _text(value)


def _text(value: Any) -> str:
    return " ".join(str(value).split())  # no tab and no line break within a cell
