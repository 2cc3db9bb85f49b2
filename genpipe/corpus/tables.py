"""Rows of one column, of a Parquet file or of a Hugging Face data set, as the UTF-8 bytes that are stored."""

import itertools
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genpipe.corpus.inputs import Input, open_input, readable
from genpipe.errors import BadInput

Rows = tuple[int, int, int]  # the first row, the row after the last, and the bytes of the column in them


def cut_rows(input: Input, shard_bytes: int) -> list[Rows]:
    """Rows of about `shard_bytes` bytes each that cover the table once."""
    return _cut_parquet(input, shard_bytes) if input.kind == "parquet" else _cut_dataset(input, shard_bytes)


def read_rows(input: Input, start: int, end: int) -> list[bytes]:
    """The values of the rows `start` to `end`; a list of strings is one value of lines."""
    column = _read_parquet(input, start, end) if input.kind == "parquet" else _read_dataset(input, start, end)
    if len(column) != end - start:
        raise BadInput(
            f"{input.path}: rows {start} to {end} are missing, since it got shorter; run this again"
        )
    is_list = _is_list(column.type)
    rows = column.cast(pa.large_list(pa.large_binary()) if is_list else pa.large_binary()).to_pylist()
    return [_value(row, input, number) for number, row in enumerate(rows, start)]


def _cut_parquet(input: Input, shard_bytes: int) -> list[Rows]:
    with open_input(input) as file:
        parquet = pq.ParquetFile(file)
        _check_column(parquet.schema_arrow, input)
        groups = [parquet.metadata.row_group(index) for index in range(parquet.num_row_groups)]
    shards: list[Rows] = []
    start = end = size = 0
    for group in groups:
        end += group.num_rows
        size += _column_bytes(group, input.field)
        if size >= shard_bytes or group is groups[-1]:
            shards.append((start, end, size))
            start, size = end, 0
    return shards


def _read_parquet(input: Input, start: int, end: int) -> pa.ChunkedArray:
    with open_input(input) as file:
        parquet = pq.ParquetFile(file)
        sizes = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
        firsts = itertools.accumulate(sizes[:-1], initial=0)
        groups = [index for index, first in enumerate(firsts) if start <= first < end]
        return parquet.read_row_groups(groups, columns=[input.field]).column(input.field)


def _column_bytes(group: Any, field: str) -> int:
    chunks = [group.column(index) for index in range(group.num_columns)]
    # the strings of a list stand in FIELD.list.element
    own = [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{field}.")]
    return sum(chunk.total_uncompressed_size for chunk in own)


def _cut_dataset(input: Input, shard_bytes: int) -> list[Rows]:
    with readable(input):
        data = _open_dataset(input).data
    _check_column(data.schema, input)
    size, rows = data.column(input.field).nbytes, data.num_rows
    step = max(1, shard_bytes * rows // max(size, 1))
    bounds = [*range(0, rows, step), rows]
    return [(a, b, size * b // rows - size * a // rows) for a, b in itertools.pairwise(bounds)]


def _read_dataset(input: Input, start: int, end: int) -> pa.ChunkedArray:
    with readable(input):
        column = _open_dataset(input).select_columns([input.field]).with_format("arrow")
        return column[start:end].column(input.field)


def _open_dataset(input: Input) -> Any:
    from datasets import Dataset, load_from_disk  # takes a second

    if input.path.endswith(".arrow"):
        return Dataset.from_file(input.path)
    try:
        return load_from_disk(input.path)
    except IndexError:  # datasets 5.2 saves a data set without rows, yet cannot load it
        raise BadInput(f"{input.path}: the data set has no rows; leave it out") from None


def _check_column(schema: pa.Schema, input: Input) -> None:
    if schema.names.count(input.field) != 1:
        has = ", ".join(schema.names) or "none"
        raise BadInput(
            f"{input.path}: must have one column {input.field!r}, it has: {has}; name the one with the text"
        )
    kind = schema.field(input.field).type
    if not _is_text(kind.value_type if _is_list(kind) else kind):
        raise BadInput(
            f"{input.path}: column {input.field!r}: must hold strings or lists of strings, not {kind}; "
            "name another column"
        )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _value(row: bytes | list[bytes | None] | None, input: Input, number: int) -> bytes:
    parts = row if isinstance(row, list) else [row]
    values = [part for part in parts if part is not None]
    if len(values) < len(parts):
        raise BadInput(
            f"{input.path}: row {number} (from 0): column {input.field!r}: must be a string or a list of strings, "
            "not null; fill it or drop the row"
        )
    return b"\n".join(values)
