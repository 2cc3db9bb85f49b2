"""What a worker does when words are counted: a shard becomes a sorted run file, a range of all runs a part of the sum.

A run is named by the hash of all that it depends on and is written whole or not at all. So counting a shard twice
changes nothing, a finished shard survives a crash, and the counts depend neither on who counted nor in which order.
"""

import contextlib
import functools
import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from genpipe import files as file_tools
from genpipe.corpus import runs as sorted_runs
from genpipe.corpus.runs import TOKEN, Part, Range, Run
from genpipe.corpus.shards import Content, Shard, read
from genpipe.corpus.tasks import Away, Task
from genpipe.corpus.tokenizers import Tokenizer
from genpipe.dependencies import version_of

FEW_TYPES = 1000  # are always held in memory
BYTES_OF_A_ROW = 400  # while it is added up and sorted, more than was seen, for ranges are not equal;
COPIES_OF_A_TOKEN = 6  # and of its token
FEW_LENGTHS = 100  # lengths below are counted one by one, longer ones by their first two digits

NO_RUN = (OSError, pl.exceptions.ComputeError)  # not counted yet, or cut off by a power failure

Statistics = dict[str, Any]
Counted = tuple[Path, pl.DataFrame | None, Statistics | None]  # no rows: the run is there already
Reduced = tuple[pl.DataFrame, int]


@dataclass(frozen=True)
class Counting:
    """What is counted, and with how much memory."""

    tokenizer: Tokenizer
    scratch: Path
    orders: tuple[int, ...] = (1,)  # of n-grams; their tokens are joined by a space
    document_frequency: bool = False
    min_count: int = 1  # of the whole corpus
    memory: int = 256 << 20  # bytes of counts in a worker; no result depends on it

    @property
    def version(self) -> str:
        """All that the counts of a shard depend on, besides its content."""
        return f"{self.tokenizer.version} {self.orders} {self.document_frequency} {_code_version()}"

    @property
    def on_threads(self) -> bool:
        """Whether threads of one process count as fast as processes do."""
        return self.tokenizer.on_threads

    @property
    def block(self) -> int:
        """Bytes of text that are counted at once: where polars streams the tokens, only their types take memory."""
        streamed = self.on_threads and self.orders == (1,)
        return max(self.tokenizer.block, self.memory // 16) if streamed else self.tokenizer.block

    @property
    def usual_shard(self) -> int:
        """Bytes of a shard that takes some tenths of a second."""
        return 16 << 20 if self.on_threads else 2 << 20

    @property
    def schema(self) -> pl.Schema:
        """The columns of a table of counts."""
        numbers = ["count", "documents"] if self.document_frequency else ["count"]
        return pl.Schema({TOKEN: pl.String, **dict.fromkeys(numbers, pl.Int64)})

    def path_of(self, content: Content) -> Path:
        """Where the run of a shard with this content lies."""
        key = hashlib.sha256(f"{self.version} {content.digest()}".encode()).hexdigest()
        return self.scratch / f"{key}.parquet"

    def ranges(self, runs: Sequence[Run]) -> int:
        """How many ranges of runs are each added up in the memory there is."""
        return max(1, math.ceil(_memory(sum(r.rows for r in runs), sum(r.bytes for r in runs)) / self.memory))


def _memory(rows: int, token_bytes: int) -> int:
    """What adding up that many rows takes, about."""
    return BYTES_OF_A_ROW * rows + COPIES_OF_A_TOKEN * token_bytes


def shard_task(shard: Shard, counting: Counting) -> Task[Run]:
    """Counts a shard."""
    away = Away(functools.partial(_pack_shard, shard, counting), _keep_run)
    return Task(str(shard), functools.partial(count_shard, shard, counting), away)


def range_task(name: str, runs: Sequence[Run], within: Range, counting: Counting, path: Path) -> Task[Part]:
    """Adds up a range of all runs."""
    away = Away(
        functools.partial(_pack_range, runs, within, counting),
        functools.partial(_keep_part, path=path),
    )
    return Task(name, functools.partial(reduce_range, runs, within, counting, path), away)


def count_shard(shard: Shard, counting: Counting) -> Run:
    """The run of a shard: the file in `scratch` if it was counted before, else counted now."""
    content = read(shard)
    path = counting.path_of(content)
    with contextlib.suppress(*NO_RUN):
        return sorted_runs.open_run(path)
    with file_tools.scratch_directory(counting.scratch, "spill") as spill:
        counts = _counted(content, counting, spill)
        return counts.write(path)


def _counted(content: Content, counting: Counting, spill: Path) -> "_Counts":
    counts = _Counts(counting, spill)
    for texts in content.blocks(counting.block):
        counts.add(texts)
    counts.replaced = content.replaced
    return counts


def _pack_shard(shard: Shard, counting: Counting) -> Callable[[], Counted]:
    content = read(shard)
    path = counting.path_of(content)
    with contextlib.suppress(*NO_RUN):
        sorted_runs.open_run(path)
        return functools.partial(tuple, (path, None, None))
    return functools.partial(_count_away, path, content, counting)


def _count_away(path: Path, content: Content, counting: Counting) -> Counted:
    """Where the run is to lie, its rows, and what is known of the text."""
    with tempfile.TemporaryDirectory(prefix="genpipe-") as spill:
        counts = _counted(content, counting, Path(spill))
        return path, counts.by_token(), counts.about()


def _keep_run(counted: Counted) -> Run:
    path, rows, about = counted
    if rows is None or about is None:
        return sorted_runs.open_run(path)
    return sorted_runs.write_run(path, rows, about)


class _Counts:
    """The counts of a shard; what does not fit into memory is spilled as sorted runs."""

    def __init__(self, counting: Counting, spill: Path) -> None:
        self._counting = counting
        self._spill = spill
        self._frames: list[pl.DataFrame] = []
        self._runs: list[Run] = []
        self._lengths: Counter[int] = Counter()
        self._characters = 0
        self.replaced = 0

    def add(self, texts: pl.Series) -> None:
        """Count some documents."""
        self._characters += int(texts.str.len_chars().sum())
        tokens = self._counting.tokenizer.explode(texts)
        # all orders at once: tokens may hold spaces, so that a pair of some is the same as another
        grams = pl.concat([_grams(tokens, order) for order in self._counting.orders])
        columns = [pl.len().cast(pl.Int64).alias("count")]
        if self._counting.document_frequency:
            columns.append(pl.col("document").n_unique().cast(pl.Int64).alias("documents"))
        counting = grams.group_by(TOKEN).agg(columns)
        measuring = tokens.group_by("document").len("tokens").group_by("tokens").len("documents")
        # both at once, so that the text is cut once and its tokens need not be held
        counts, lengths = pl.collect_all([counting, measuring], engine="streaming")
        self._frames.append(counts)
        self._lengths.update(dict(lengths.iter_rows()))
        if without := len(texts) - int(lengths["documents"].sum()):
            self._lengths[0] += without
        if self._is_full() and len(self._frames) > 1:
            self._frames = [sorted_runs.add_up(pl.concat(self._frames))]
        if self._is_full():
            self._spill_all()

    def _is_full(self) -> bool:
        rows = sum(map(len, self._frames))
        size = sum(map(sorted_runs.token_bytes, self._frames))
        return rows > FEW_TYPES and _memory(rows, size) > self._counting.memory

    def about(self) -> dict[str, Any]:
        """Documents, characters, tokens, and how many documents have how many tokens."""
        lengths: Counter[int] = Counter()
        for length, documents in self._lengths.items():
            lengths[_rounded(length)] += documents
        return {
            "documents": self._lengths.total(),
            "characters": self._characters,
            "tokens": sum(length * documents for length, documents in self._lengths.items()),
            "lengths": {str(length): lengths[length] for length in sorted(lengths)},
            "replaced": self.replaced,
        }

    def by_token(self) -> pl.DataFrame:
        """All counts, by token."""
        if not self._runs:
            return self._take()
        return sorted_runs.rows_within(self._added_up(), (None, None)).collect()

    def write(self, path: Path) -> Run:
        """All counts as a run."""
        if not self._runs:
            return sorted_runs.write_run(path, self._take(), self.about())
        return sorted_runs.join_runs(path, self._added_up(), self.about())

    def _added_up(self) -> list[Run]:
        """The sum of what was spilled, as runs of which each begins behind the one before."""
        self._spill_all()
        sums: list[Run] = []
        for within in sorted_runs.choose_ranges(self._runs, self._counting.ranges(self._runs)):
            total = sorted_runs.add_up(sorted_runs.rows_within(self._runs, within))
            path = self._spill / f"range{len(sums)}.parquet"
            sums.append(sorted_runs.write_run(path, sorted_runs.by_token(total), {}))
        return sums

    def _spill_all(self) -> None:
        path = self._spill / f"{len(self._runs)}.parquet"
        self._runs.append(sorted_runs.write_run(path, self._take(), {}))

    def _take(self) -> pl.DataFrame:
        """What is in memory, by token; then nothing is."""
        frames, self._frames = self._frames, []
        if not frames:
            return pl.DataFrame(schema=self._counting.schema)
        return sorted_runs.by_token(sorted_runs.add_up(pl.concat(frames)) if len(frames) > 1 else frames[0])


def _grams(tokens: pl.LazyFrame, order: int) -> pl.LazyFrame:
    """The n-grams of tokens in a row, [document, token]; none goes from one document to the next."""
    if order == 1:
        return tokens
    joined = pl.concat_str([pl.col(TOKEN).shift(-i) for i in range(order)], separator=" ").alias(TOKEN)
    inside = pl.col("document") == pl.col("document").shift(1 - order)
    return tokens.select("document", joined, inside.alias("inside")).filter("inside").drop("inside")


def _rounded(length: int) -> int:
    if length < FEW_LENGTHS:
        return length
    digits = 10 ** (len(str(length)) - 2)
    return length // digits * digits


def reduce_range(runs: Sequence[Run], within: Range, counting: Counting, path: Path) -> Part:
    """The sum of all runs over a range of tokens, by count descending, then by token."""
    return _keep_part(_reduced(sorted_runs.rows_within(runs, within), counting), path)


def _pack_range(runs: Sequence[Run], within: Range, counting: Counting) -> Callable[[], Reduced]:
    return functools.partial(_reduced, sorted_runs.rows_within(runs, within).collect(), counting)


def _reduced(rows: pl.DataFrame | pl.LazyFrame, counting: Counting) -> Reduced:
    """The rows that are frequent enough, in order, and how many there were."""
    total = sorted_runs.add_up(rows)
    kept = total.lazy().filter(pl.col("count") >= counting.min_count)
    return kept.sort("count", TOKEN, descending=[True, False]).collect(engine="streaming"), len(total)


def _keep_part(reduced: Reduced, path: Path) -> Part:
    kept, types = reduced
    return sorted_runs.write_part(path, kept, types)


@functools.cache
def _code_version() -> str:
    return version_of("corpus.counting")
