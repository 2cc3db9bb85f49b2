"""Runs: sorted files of tokens and their counts, mapped into memory, added up by ranges of tokens.

Runs hold disjoint parts of a corpus. Their sum is made range by range, so that memory holds one range at a time, and
written by count: the bytes depend neither on the ranges nor on the number of runs.
"""

import heapq
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from genpipe.files import new_file

TOKEN = "token"
ROWS = 1 << 20  # of a row group of the table, and of a batch of a run
SAMPLES = 4096  # tokens by which the ranges are chosen

Range = tuple[
    str | None, str | None
]  # tokens from the first (included) to the second (excluded); None is no bound


@dataclass(frozen=True)
class Run:
    """A sorted file of counts, and what is known of the text behind it."""

    path: Path
    rows: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Its size on disk, which is that in memory."""
        return self.path.stat().st_size

    def table(self) -> pa.Table:
        """All rows, mapped from disk."""
        with pa.memory_map(str(self.path)) as source:
            return pa.ipc.open_file(source).read_all()


def write_run(path: Path, batches: Iterable[pa.Table], schema: pa.Schema, about: dict[str, Any]) -> Run:
    """Write sorted rows, whole or not at all."""
    rows = 0
    options = pa.ipc.IpcWriteOptions(compression=None)  # so that it can be searched where it lies
    described = schema.with_metadata({"about": json.dumps(about, sort_keys=True)})
    with new_file(path) as partial, pa.ipc.new_file(str(partial), described, options=options) as writer:
        for batch in batches:
            rows += batch.num_rows
            writer.write_table(batch.cast(schema), max_chunksize=ROWS)
    return Run(path, rows, about)


def open_run(path: Path) -> Run:
    """The run in a file; FileNotFoundError or ArrowInvalid where it is not, or not whole."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        rows = sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
        return Run(path, rows, json.loads((reader.schema.metadata or {})[b"about"]))


def sorted_frame(frame: pl.DataFrame) -> pa.Table:
    """The rows by token, in the order of code points, which is that of UTF-8 bytes."""
    return as_arrow(frame.sort(TOKEN))


def as_arrow(frame: pl.DataFrame) -> pa.Table:
    """The rows as Arrow, tokens as plain strings."""
    table = frame.to_arrow()
    position = table.schema.get_field_index(TOKEN)
    return table.set_column(position, TOKEN, table[TOKEN].cast(pa.string()))


def choose_ranges(runs: Sequence[Run], number: int) -> list[Range]:
    """At most `number` ranges with about as many rows each, by a sample of every run."""
    rows = sum(run.rows for run in runs)
    step = max(1, rows // SAMPLES)
    sample: list[str] = []
    for run in runs:
        sample += pl.Series(run.table()[TOKEN]).gather_every(step).to_list()
    sample.sort()
    cuts = sorted({sample[len(sample) * i // number] for i in range(1, number)}) if sample else []
    return list(zip([None, *cuts], [*cuts, None], strict=True))


def add_up(runs: Sequence[Run], within: Range, schema: pa.Schema) -> pl.DataFrame:
    """The sum of all runs over a range of tokens; rows in no order."""
    parts = [part for run in runs if (part := rows_within(run.table(), within)).num_rows]
    frames = [pl.from_arrow(part) for part in parts]
    whole = pl.concat([frame for frame in frames if isinstance(frame, pl.DataFrame)] or [empty(schema)])
    if len(parts) < 2:
        return whole
    return whole.group_by(TOKEN).agg(pl.exclude(TOKEN).sum())


def empty(schema: pa.Schema) -> pl.DataFrame:
    """No rows, with the columns of a schema."""
    return pl.DataFrame(schema={name: pl.String if name == TOKEN else pl.Int64 for name in schema.names})


def rows_within(table: pa.Table, within: Range) -> pa.Table:
    """The rows of a sorted table whose tokens are in a range."""
    tokens = _Bytes(table[TOKEN])
    first, last = (
        default if bound is None else bisect_left(tokens, bound.encode())
        for bound, default in zip(within, (0, len(tokens)), strict=True)
    )
    return table.slice(first, last - first)


class _Bytes(Sequence[bytes]):
    """The tokens of a column as bytes, without making a list of them."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        return self._column[index].as_buffer().to_pybytes()


def by_count(parts: Sequence[Run]) -> Iterator[pa.Table]:
    """All rows by count descending, then by token, in tables of ROWS rows.

    The parts are consecutive ranges of tokens, each ordered in this way: for one count, the parts in their order are
    the tokens in theirs.
    """
    tables = [part.table() for part in parts]
    pending: list[pa.Table] = []
    rows = 0
    for _, number, start, length in heapq.merge(*(_stretches(i, table) for i, table in enumerate(tables))):
        while length:
            taken = min(length, ROWS - rows)
            pending.append(tables[number].slice(start, taken))
            start, length, rows = start + taken, length - taken, rows + taken
            if rows == ROWS:
                yield pa.concat_tables(pending).combine_chunks()
                pending, rows = [], 0
    if pending:
        yield pa.concat_tables(pending).combine_chunks()


def _stretches(number: int, table: pa.Table) -> Iterator[tuple[int, int, int, int]]:
    """(-count, number, start, length) of the rows of one count after the other."""
    counts = table["count"].to_numpy()
    starts = np.flatnonzero(np.diff(counts, prepend=counts[0] + 1)) if len(counts) else counts
    for start, length in zip(starts.tolist(), np.diff(starts, append=len(counts)).tolist(), strict=True):
        yield -int(counts[start]), number, start, length


def write_table(path: Path, parts: Sequence[Run], schema: pa.Schema, top: int | None = None) -> int:
    """Write the rows of all parts as Parquet, by count descending, then by token; the number of rows."""
    left = sum(part.rows for part in parts) if top is None else top
    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in by_count(parts):
            kept = table.slice(0, left - written)
            writer.write_table(kept.cast(schema), row_group_size=ROWS)
            written += kept.num_rows
            if written == left:
                break
    return written
