"""Runs: sorted files of tokens and their counts, added up by ranges of tokens.

Runs hold disjoint parts of a corpus. Their sum is made range by range, so that memory holds one range at a time, and
written by count: the bytes depend neither on the ranges nor on the number of runs.

Polars reads and writes all of it: to import PyArrow too would take longer than to count ten megabytes.
"""

import bisect
import contextlib
import errno
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from genpipe.files import new_file

TOKEN = "token"
ROWS = 1 << 20  # of a row group of the table
PART_ROWS = 1 << 16  # of a batch of a part
RUN_ROWS = 1 << 14  # of a row group of a run: what a reader of a range reads too much at its ends
EVERY = 1 << 10  # rows of a run, at most, for which one token stands when ranges are chosen
SAMPLES = 16  # of a run, at least
PREFIX = 32  # characters of these tokens

Range = tuple[
    str | None, str | None
]  # tokens from the first (included) to the second (excluded); None is no bound


@dataclass(frozen=True)
class Run:
    """A Parquet file of counts sorted by token, and what is known of the text behind it."""

    path: Path
    rows: int
    bytes: int  # of the tokens
    sample: list[tuple[str, int]]  # how evenly spaced tokens begin, and for how many rows each stands
    about: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """An Arrow file of one range of the sum, ordered by count, then by token."""

    path: Path
    rows: int
    types: int  # of the range, those too rare to be written too


def write_run(path: Path, frame: pl.DataFrame, about: dict[str, Any]) -> Run:
    """Write rows that are sorted by token, whole or not at all."""
    every = max(1, min(EVERY, len(frame) // SAMPLES))
    sample = [(token, every) for token in frame[TOKEN].gather_every(every).str.slice(0, PREFIX)]
    return _write(frame.lazy(), Run(path, len(frame), token_bytes(frame), sample, about))


def join_runs(path: Path, runs: Sequence[Run], about: dict[str, Any]) -> Run:
    """Write runs of which each begins behind the one before as one."""
    rows, size = sum(run.rows for run in runs), sum(run.bytes for run in runs)
    sample = [each for run in runs for each in run.sample]
    return _write(rows_within(runs, (None, None)), Run(path, rows, size, sample, about))


def _write(rows: pl.LazyFrame, run: Run) -> Run:
    about = {name: value for name, value in vars(run).items() if name != "path"}
    with new_file(run.path) as partial, _numbered_errors(run.path):
        rows.sink_parquet(
            partial, compression="lz4", row_group_size=RUN_ROWS, metadata={"genpipe": json.dumps(about)}
        )
    return run


def open_run(path: Path) -> Run:
    """The run in a file; OSError or ComputeError where it is not, or not whole."""
    return Run(path, **json.loads(pl.read_parquet_metadata(path)["genpipe"]))


def token_bytes(frame: pl.DataFrame) -> int:
    """Bytes of all its tokens."""
    return int(frame[TOKEN].str.len_bytes().cast(pl.Int64).sum())


def write_part(path: Path, frame: pl.DataFrame, types: int) -> Part:
    """Write a range of the sum."""
    with new_file(path) as partial, _numbered_errors(path):
        frame.write_ipc(partial, record_batch_size=PART_ROWS)
    return Part(path, len(frame), types)


@contextlib.contextmanager
def _numbered_errors(path: Path) -> Iterator[None]:
    """Errors of the disk as OSErrors with a number, of which polars only speaks."""
    try:
        yield
    except (pl.exceptions.ComputeError, OSError) as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None or int(found[1]) == errno.ENOENT:  # of a file that was to be read
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None


def by_token(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows in the order of their tokens' code points, which is that of their UTF-8 bytes."""
    return frame.sort(TOKEN, "count")  # by two keys it takes half the time of one


def choose_ranges(runs: Sequence[Run], number: int) -> list[Range]:
    """At most `number` ranges with about as many rows each, by the samples of all runs."""
    sample = sorted((token, rows) for run in runs for token, rows in run.sample)
    behind = list(itertools.accumulate(rows for _, rows in sample))
    places = [bisect.bisect_left(behind, behind[-1] * i / number) for i in range(1, number)] if sample else []
    cuts = sorted({sample[place][0] for place in places})
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


def by_count(parts: Sequence[Part]) -> pl.LazyFrame:
    """All rows of the parts, of which there is one or more, by count descending, then by token.

    The parts are consecutive ranges of tokens, each ordered in this way: for one count, the parts in their order are
    the tokens in theirs.
    """
    each = [
        pl.scan_ipc(part.path, glob=False).with_columns((-pl.col("count")).alias("order")) for part in parts
    ]
    return pl.merge_sorted(each, "order", maintain_order=True).drop("order")


def write_table(path: Path, rows: pl.LazyFrame) -> None:
    """Write ordered rows as Parquet; the same rows give the same bytes."""
    with _numbered_errors(path):
        rows.sink_parquet(path, compression="zstd", row_group_size=ROWS, engine="streaming")
