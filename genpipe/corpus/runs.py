"""Runs: sorted files of tokens and their counts, added up by ranges of tokens.

Runs hold disjoint parts of a corpus. Their sum is made range by range, so that memory holds one range at a time, and
written by count: the bytes depend neither on the ranges nor on the number of runs.
"""

import bisect
import heapq
import itertools
import json
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
ROWS = 1 << 20  # of a row group of the table
RUN_ROWS = 1 << 12  # of a row group of a run, at most: what a reader of a range reads too much at its ends
RUN_GROUPS = 16  # of a frame in a run, at least, so that ranges can be chosen by their first tokens
PREFIX = 32  # characters of a token that the ranges are chosen by

Range = tuple[
    str | None, str | None
]  # tokens from the first (included) to the second (excluded); None is no bound


@dataclass(frozen=True)
class Run:
    """A Parquet file of counts sorted by token, and what is known of the text behind it."""

    path: Path
    rows: int
    bytes: int  # of the tokens
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """An Arrow file of one range of the sum, ordered by count, then by token; mapped into memory."""

    path: Path
    rows: int
    types: int  # of the range, those too rare to be written too

    def table(self) -> pa.Table:
        """All rows."""
        with pa.memory_map(str(self.path)) as source:
            return pa.ipc.open_file(source).read_all()


def write_run(path: Path, frames: Iterable[pl.DataFrame], schema: pa.Schema, about: dict[str, Any]) -> Run:
    """Write frames that are sorted and follow each other, whole or not at all."""
    rows = size = 0
    firsts: list[tuple[str, int]] = []  # how the first token of each row group begins, and its rows
    # its own dictionary would be as long as the column; lz4 shares what neighbours in the order begin with
    options: dict[str, Any] = {"compression": "lz4", "use_dictionary": False, "store_schema": False}
    with new_file(path) as partial, pq.ParquetWriter(partial, schema, **options) as writer:
        for frame in frames:
            rows += len(frame)
            size += token_bytes(frame)
            step = max(1, min(RUN_ROWS, len(frame) // RUN_GROUPS))
            firsts += [(token, step) for token in frame[TOKEN].gather_every(step).str.slice(0, PREFIX)]
            writer.write_table(as_arrow(frame, schema), row_group_size=step)
        told = {"about": about, "bytes": size, "firsts": firsts}
        writer.add_key_value_metadata({"genpipe": json.dumps(told, sort_keys=True)})
    return Run(path, rows, size, about)


def open_run(path: Path) -> Run:
    """The run in a file; OSError or ArrowInvalid where it is not, or not whole."""
    rows, told = _told(path)
    return Run(path, rows, told["bytes"], told["about"])


def _told(path: Path) -> tuple[int, dict[str, Any]]:
    footer = pq.read_metadata(path)
    return footer.num_rows, json.loads(footer.metadata[b"genpipe"])


def token_bytes(frame: pl.DataFrame) -> int:
    """Bytes of all its tokens."""
    return int(frame[TOKEN].str.len_bytes().cast(pl.Int64).sum())


def write_part(path: Path, frame: pl.DataFrame, schema: pa.Schema, types: int) -> Part:
    """Write a range of the sum."""
    options = pa.ipc.IpcWriteOptions(compression=None)  # so that it is read where it lies
    with new_file(path) as partial, pa.ipc.new_file(str(partial), schema, options=options) as writer:
        writer.write_table(as_arrow(frame, schema), max_chunksize=ROWS)
    return Part(path, len(frame), types)


def as_arrow(frame: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    """The rows as Arrow, tokens as plain strings."""
    return frame.to_arrow().cast(schema)


def empty(schema: pa.Schema) -> pl.DataFrame:
    """No rows, with the columns of a schema."""
    return pl.DataFrame(schema={name: pl.String if name == TOKEN else pl.Int64 for name in schema.names})


def by_token(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows in the order of their tokens' code points, which is that of their UTF-8 bytes."""
    return frame.sort(TOKEN, "count")  # by two keys it takes half the time of one


def choose_ranges(runs: Sequence[Run], number: int) -> list[Range]:
    """At most `number` ranges with about as many rows each, by how the first tokens of all row groups begin."""
    firsts: list[tuple[str, int]] = []
    for run in runs if number > 1 else ():
        firsts += [(token, rows) for token, rows in _told(run.path)[1]["firsts"]]
    firsts.sort()
    behind = list(itertools.accumulate(rows for _, rows in firsts))
    places = [bisect.bisect_left(behind, behind[-1] * i / number) for i in range(1, number)] if behind else []
    cuts = sorted({firsts[place][0] for place in places})
    return list(zip([None, *cuts], [*cuts, None], strict=True))


def rows_within(runs: Sequence[Run], within: Range) -> pl.LazyFrame:
    """The rows of all runs, of which there is one or more, whose tokens are in a range."""
    rows = pl.scan_parquet([run.path for run in runs], glob=False)
    first, last = within
    if first is not None:
        rows = rows.filter(pl.col(TOKEN) >= first)
    if last is not None:
        rows = rows.filter(pl.col(TOKEN) < last)
    return rows


def add_up(rows: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """The sums of the rows of each token, in no order."""
    # the streaming engine takes half the memory, and is faster: it groups the most frequent tokens apart
    return rows.lazy().group_by(TOKEN).agg(pl.exclude(TOKEN).sum()).collect(engine="streaming")


def by_count(parts: Sequence[Part]) -> Iterator[pa.Table]:
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
    counts = pl.Series(table["count"]).to_numpy()  # ChunkedArray.to_numpy imports pandas
    starts = np.flatnonzero(np.diff(counts, prepend=counts[0] + 1)) if len(counts) else counts
    for start, length in zip(starts.tolist(), np.diff(starts, append=len(counts)).tolist(), strict=True):
        yield -int(counts[start]), number, start, length


def write_table(path: Path, parts: Sequence[Part], schema: pa.Schema, top: int | None = None) -> int:
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
