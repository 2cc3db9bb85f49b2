"""Text in a format of Hugging Face's `datasets`, on disk, as records; no code of a data set is ever run."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genpipe.errors import BadInput
from genpipe.params.corpora import HuggingFaceText
from genpipe.sources.documents import Record, file_counts, write_documents
from genpipe.sources.hub_tables import BINARY, opened, roles_of
from genpipe.sources.jsonl import write_jsonl
from genpipe.sources.prepared import Prepared

READERS = {**BINARY, ".csv": "csv", ".jsonl": "json"}
Reading = Callable[[Any], Any]  # of a value of a column, as JSON has it


def prepare_hugging_face_text(source: Path, directory: Path, dataset: HuggingFaceText) -> Prepared:
    """Write a record for each row, with a field for each column; a column in a column is called OUTER.INNER.

    Rows in which a column has no value are left out and counted.
    """
    left_out: Counter[str] = Counter()
    with opened(source, READERS, otherwise=None) as splits:
        tables = {name: table.flatten() for name, table in splits.items()}
        readings = _readings(source, next(iter(tables.values())).features, dataset.columns)
        roles = roles_of(source, {*tables})
        if roles:
            counts = _by_role(source, directory, tables, roles, readings, left_out)
        else:
            ((name, table),) = tables.items()
            records = list(_records(source, name, table, readings, left_out))
            key = lambda record: [json.dumps(record, sort_keys=True)]
            counts = write_documents(directory, lambda: iter(records), dataset.test_share, key)
    notes = [f"columns: {', '.join(readings)}"]
    return Prepared(tuple(counts), {}, file_counts(counts), left_out, notes)


def _by_role(
    source: Path,
    directory: Path,
    tables: Mapping[str, Any],
    roles: Mapping[str, str],
    readings: Mapping[str, Reading],
    left_out: Counter[str],
) -> dict[str, int]:
    """The splits as they are given; several of one role are one after another."""
    counts: dict[str, int] = {}
    for role in ("train", "test"):
        with (directory / f"{role}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            counts[role] = sum(
                write_jsonl(file, _records(source, name, table, readings, left_out))
                for name, table in tables.items()
                if roles[name] == role
            )
        if not counts[role]:
            raise BadInput(f"{source}: no row with all columns to {role}; name other columns")
    return counts


def _records(
    source: Path, name: str, table: Any, readings: Mapping[str, Reading], left_out: Counter[str]
) -> Iterator[Record]:
    missing = [column for column in readings if column not in table.column_names]
    if missing:
        raise BadInput(
            f"{source}: the split {name} has no column {missing[0]!r}; it has: {', '.join(table.column_names)}"
        )
    for row in table.select_columns([*readings]):
        record = {column: read(row[column]) for column, read in readings.items()}
        if any(value is None or value == "" for value in record.values()):
            left_out["rows without a value in a column"] += 1
        else:
            yield record


def _readings(source: Path, features: Mapping[str, Any], named: tuple[str, ...]) -> dict[str, Reading]:
    """The columns to take, and how each is read. Raises BadInput where a named one is missing or cannot be read."""
    for column in named:
        if column not in features:
            raise BadInput(f"{source}: no column {column!r}; it has: {', '.join(features)}")
    readings: dict[str, Reading] = {}
    for column in named or features:
        read = _reading(features[column])
        if read is not None:
            readings[column] = read
        elif named:
            raise BadInput(
                f"{source}: the column {column} holds {features[column]}, and not texts, numbers or classes"
            )
    if not readings:
        raise BadInput(f"{source}: no column of texts, whole numbers or classes among {', '.join(features)}")
    return readings


def _reading(kind: Any) -> Reading | None:
    """How a value of a kind becomes JSON: texts, lists of texts, whole numbers, and classes by name; None for others."""
    from datasets import ClassLabel, List, Value

    if isinstance(kind, ClassLabel):
        return lambda value: None if value is None or value < 0 else kind.names[value]
    if isinstance(kind, Value) and ("string" in kind.dtype or "int" in kind.dtype or kind.dtype == "bool"):
        return lambda value: int(value) if isinstance(value, bool) else value
    if isinstance(kind, List) and isinstance(kind.feature, Value) and "string" in kind.feature.dtype:
        return lambda value: value
    return None
