"""Exact word counts: every shard becomes one sorted run file, and the runs are added up.

A run is named by the hash of all that it depends on and is written whole or not at all. So counting a shard twice
changes nothing, a finished shard survives a crash, and the counts depend neither on who counted nor in which order.
"""

import contextlib
import functools
import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from genpipe import files as file_tools
from genpipe.corpus import runs as sorted_runs
from genpipe.corpus import statistics
from genpipe.corpus.executors import MB_PER_S, Where, executor
from genpipe.corpus.inputs import Input, find_inputs
from genpipe.corpus.runs import TOKEN, Part, Range, Run
from genpipe.corpus.shards import Content, Shard, cut, read
from genpipe.corpus.tasks import Away, Executor, Task
from genpipe.corpus.tokenizers import Tokenizer, Vectorised, corpus_tokenizer
from genpipe.params.cluster import Cluster
from genpipe.params.corpora import Corpus
from genpipe.progress import Progress

TOP = 1000  # rows of top.tsv
FEW_TYPES = 1000  # are always held in memory
BYTES_OF_A_ROW = (
    400  # of counts, while they are added up and sorted: more than was seen, for ranges are not equal
)
FEW_LENGTHS = 100  # lengths below are told apart, longer ones by their first two digits

NO_RUN = (FileNotFoundError, pa.ArrowInvalid)  # not counted yet, or cut off by a power failure

Statistics = dict[str, Any]
Counted = tuple[
    Path, list[pl.DataFrame] | None, Statistics | None
]  # without rows where the run is there already
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
        return isinstance(self.tokenizer, Vectorised)

    @property
    def usual_shard(self) -> int:
        """Bytes of a shard that takes some tenths of a second."""
        return 16 << 20 if self.on_threads else 2 << 20

    @property
    def schema(self) -> pa.Schema:
        """The columns of a table of counts."""
        columns = [(TOKEN, pa.string()), ("count", pa.int64())]
        return pa.schema(columns + [("documents", pa.int64())] * self.document_frequency)

    def path_of(self, content: Content) -> Path:
        """Where the run of a shard with this content lies."""
        key = hashlib.sha256(f"{self.version} {content.digest()}".encode()).hexdigest()
        return self.scratch / f"{key}.parquet"

    def ranges(self, runs: Sequence[Run]) -> int:
        """How many ranges of runs are each added up in the memory there is."""
        return max(1, math.ceil(BYTES_OF_A_ROW * sum(run.rows for run in runs) / self.memory))


def count_shard(shard: Shard, counting: Counting) -> Run:
    """The run of a shard: the file in `scratch` if it was counted before, else counted now."""
    content = read(shard)
    path = counting.path_of(content)
    with contextlib.suppress(*NO_RUN):
        return sorted_runs.open_run(path)
    with file_tools.scratch_directory(counting.scratch, "spill") as spill:
        counts = _counted(content, counting, spill)
        return sorted_runs.write_run(path, counts.sorted(), counting.schema, counts.about())


def _counted(content: Content, counting: Counting, spill: Path) -> "_Counts":
    counts = _Counts(counting, spill)
    for texts in content.blocks(counting.tokenizer.block):
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
        return path, list(counts.sorted()), counts.about()


def _keep_run(counted: Counted, counting: Counting) -> Run:
    path, frames, about = counted
    if frames is None or about is None:
        return sorted_runs.open_run(path)
    return sorted_runs.write_run(path, frames, counting.schema, about)


class _Counts:
    """The counts of a shard; what does not fit into memory is spilled as sorted runs."""

    def __init__(self, counting: Counting, spill: Path) -> None:
        self._counting = counting
        self._spill = spill
        self._frames: list[pl.DataFrame] = []
        self._runs: list[Run] = []
        self._most = max(FEW_TYPES, counting.memory // BYTES_OF_A_ROW)  # types in memory
        self._lengths: Counter[int] = Counter()
        self._characters = 0
        self.replaced = 0

    def add(self, texts: pl.Series) -> None:
        """Count some documents."""
        self._characters += int(texts.str.len_chars().sum())
        tokens = self._counting.tokenizer.explode(texts)
        self._lengths.update(np.bincount(tokens["document"].to_numpy(), minlength=len(texts)).tolist())
        for order in self._counting.orders:
            self._frames.append(self._grouped(_grams(tokens.lazy(), order)))
        if sum(map(len, self._frames)) > self._most:
            self._frames = [sorted_runs.add_up(pl.concat(self._frames))]
            if len(self._frames[0]) > self._most:
                self._spill_all()

    def _grouped(self, grams: pl.LazyFrame) -> pl.DataFrame:
        columns = [pl.len().cast(pl.Int64).alias("count")]
        if self._counting.document_frequency:
            columns.append(pl.col("document").n_unique().cast(pl.Int64).alias("documents"))
        return grams.group_by(TOKEN).agg(columns).collect(engine="streaming")

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

    def sorted(self) -> Iterator[pl.DataFrame]:
        """All counts, by token."""
        if not self._runs:
            yield self._take()
            return
        self._spill_all()
        for within in sorted_runs.choose_ranges(self._runs, self._counting.ranges(self._runs)):
            yield sorted_runs.by_token(sorted_runs.add_up(sorted_runs.rows_within(self._runs, within)))

    def _spill_all(self) -> None:
        path = self._spill / f"{len(self._runs)}.parquet"
        self._runs.append(sorted_runs.write_run(path, [self._take()], self._counting.schema, {}))

    def _take(self) -> pl.DataFrame:
        """What is in memory, by token; then nothing is."""
        frames, self._frames = self._frames, []
        if not frames:
            return sorted_runs.empty(self._counting.schema)
        return sorted_runs.by_token(sorted_runs.add_up(pl.concat(frames)) if len(frames) > 1 else frames[0])


def _grams(tokens: pl.LazyFrame, order: int) -> pl.LazyFrame:
    """The n-grams of tokens in a row, [document, token]; none goes from one document to the next."""
    if order == 1:
        return tokens
    joined = pl.concat_str([pl.col(TOKEN).shift(-i) for i in range(order)], separator=" ").alias(TOKEN)
    inside = pl.col("document") == pl.col("document").shift(1 - order)
    return tokens.select("document", joined, inside.alias("inside")).filter("inside")


def _rounded(length: int) -> int:
    if length < FEW_LENGTHS:
        return length
    digits = 10 ** (len(str(length)) - 2)
    return length // digits * digits


@dataclass(frozen=True)
class Counts:
    """The counts of a corpus: parts to be written by count, and what is known of the text."""

    parts: list[Part]
    schema: pa.Schema
    statistics: Statistics
    lengths: dict[int, int]  # how many documents have how many tokens

    def tables(self) -> Iterator[pa.Table]:
        """All rows, by count descending, then by token; a table at a time."""
        return sorted_runs.by_count(self.parts)

    def write(self, path: Path, top: int | None = None) -> None:
        """Write Parquet: by count descending, then token by code point; `top` rows, or all."""
        sorted_runs.write_table(path, self.parts, self.schema, top)

    def head(self, rows: int) -> pa.Table:
        """The most frequent tokens."""
        table = next(self.tables(), self.schema.empty_table())
        return table.slice(0, rows)


@contextlib.contextmanager
def counted(
    inputs: Sequence[Input],
    counting: Counting,
    *,
    shard_bytes: int,
    workers: int,
    where: Where,
    name: str,
) -> Iterator[Counts]:
    """Count texts; the parts are there as long as the block."""
    shards = [shard for item in inputs for shard in cut(item, shard_bytes)]
    megabytes = sum(shard.size for shard in shards) / 1e6
    seconds = megabytes / MB_PER_S[counting.tokenizer.name] * len(counting.orders)
    counting.scratch.mkdir(parents=True, exist_ok=True)
    with (
        file_tools.scratch_directory(counting.scratch, "here") as here,
        executor(
            where,
            workers,
            len(shards),
            seconds,
            threads=counting.on_threads,
            shared=(here, *(path for item in inputs if (path := item.local_path))),
        ) as does,
        counted_by(does, shards, counting, workers=workers, name=name) as counts,
    ):
        yield counts


@contextlib.contextmanager
def counted_by(
    does: Executor, shards: Sequence[Shard], counting: Counting, *, workers: int, name: str
) -> Iterator[Counts]:
    """Count shards by an executor that may have done other work before."""
    counting.scratch.mkdir(parents=True, exist_ok=True)
    keep = functools.partial(_keep_run, counting=counting)
    tasks = [
        Task(
            str(shard),
            functools.partial(count_shard, shard, counting),
            Away(functools.partial(_pack_shard, shard, counting), keep),
        )
        for shard in shards
    ]
    with file_tools.scratch_directory(counting.scratch, "parts") as directory:
        with Progress(name, sum(shard.size for shard in shards) / 1e6, "MB") as progress:
            tokens = 0

            def done(number: int, run: Run) -> None:
                nonlocal tokens
                tokens += run.about["tokens"]
                alive = f", {does.alive} workers" if does.alive > 1 else ""
                progress.reach(progress.done + shards[number].size / 1e6, f"{tokens:,} tokens{alive}")

            runs = does.run(tasks, done)
        parts = _reduce(runs, counting, workers, does, directory, name)
        yield Counts(parts, counting.schema, _statistics(parts, runs, shards), _lengths(runs))


def _reduce(
    runs: Sequence[Run], counting: Counting, workers: int, does: Executor, directory: Path, name: str
) -> list[Part]:
    if not runs:
        return []
    distinct = list({run.path: run for run in runs}.values())
    ranges = sorted_runs.choose_ranges(distinct, max(workers, counting.ranges(runs)))
    tasks = [
        Task(
            f"{name}: range {i}",
            functools.partial(reduce_range, runs, within, counting, directory / f"{i}.arrow"),
            Away(
                functools.partial(_pack_range, runs, within, counting),
                functools.partial(_keep_part, counting=counting, path=directory / f"{i}.arrow"),
            ),
        )
        for i, within in enumerate(ranges)
    ]
    if len(tasks) == 1:
        return [tasks[0].work()]
    with Progress(f"{name}, adding up", len(tasks), "ranges") as progress:
        return does.run(tasks, lambda number, part: progress.reach(progress.done + 1))


def reduce_range(runs: Sequence[Run], within: Range, counting: Counting, path: Path) -> Part:
    """The sum of all runs over a range of tokens, by count descending, then by token."""
    return _keep_part(_reduced(sorted_runs.rows_within(runs, within), counting), counting, path)


def _pack_range(runs: Sequence[Run], within: Range, counting: Counting) -> Callable[[], Reduced]:
    return functools.partial(_reduced, sorted_runs.rows_within(runs, within).collect(), counting)


def _reduced(rows: pl.DataFrame | pl.LazyFrame, counting: Counting) -> Reduced:
    """The rows that are frequent enough, in order, and how many there were."""
    total = sorted_runs.add_up(rows)
    kept = total.filter(pl.col("count") >= counting.min_count)
    return kept.sort("count", TOKEN, descending=[True, False]), len(total)


def _keep_part(reduced: Reduced, counting: Counting, path: Path) -> Part:
    kept, types = reduced
    return sorted_runs.write_part(path, kept, counting.schema, types)


def _statistics(parts: Sequence[Part], runs: Sequence[Run], shards: Sequence[Shard]) -> Statistics:
    keys = ("documents", "characters", "tokens", "replaced")
    return {
        **{key: sum(run.about[key] for run in runs) for key in keys},
        "types": sum(part.types for part in parts),
        "bytes": sum(shard.size for shard in shards),
    }


def _lengths(runs: Sequence[Run]) -> dict[int, int]:
    lengths: Counter[int] = Counter()
    for run in runs:
        lengths.update({int(length): documents for length, documents in run.about["lengths"].items()})
    return dict(lengths)


def count_corpus(root: Path, name: str, corpus: Corpus, cluster: Cluster) -> None:
    """Write artifacts/counts/NAME: counts.parquet, top.tsv, statistics.json, and the curves of the corpus as TSV."""
    dataset = root / "artifacts" / "datasets" / corpus.dataset
    remedy = f"make it first: genpipe prepare {corpus.dataset}"
    files = [str(file_tools.existing(dataset / file, remedy)) for file in corpus.files]
    counting = Counting(corpus_tokenizer(root, corpus), scratch_of(root), memory=cluster.memory_mb << 20)
    with counted(
        find_inputs(files, field=corpus.field),
        counting,
        shard_bytes=corpus.shard_bytes,
        workers=cluster.workers,
        where=cluster.executor,
        name=f"count {name}",
    ) as counts:
        with file_tools.new_directory(root / "artifacts" / "counts" / name) as directory:
            counts.write(directory / "counts.parquet")
            write_figures(counts, directory)
        print(summary(counts))


def count_inputs(
    inputs: Sequence[Input],
    counting: Counting,
    *,
    shard_bytes: int,
    workers: int,
    where: Where,
    out: Path,
    top: int | None,
) -> None:
    """Count texts into the Parquet file `out` (`top` rows, or all), and print what was found."""
    with counted(
        inputs, counting, shard_bytes=shard_bytes, workers=workers, where=where, name="count"
    ) as counts:
        with file_tools.new_file(out) as partial:
            counts.write(partial, top)
        print(summary(counts))
    print(f"the counts are in {out}")


def scratch_of(root: Path) -> Path:
    """Where the runs of a project lie."""
    return root.resolve() / ".genpipe" / "counts"


def write_figures(counts: Counts, directory: Path) -> None:
    """What people look at: the top words, Zipf plot, growth, coverage and lengths, as tables."""
    spectrum = statistics.spectrum_of(counts.tables())
    tokens = counts.statistics["tokens"]
    rows = enumerate(counts.head(TOP).to_pylist(), start=1)
    top = [(rank, _escaped(row[TOKEN]), row["count"], f"{row['count'] / tokens:.8f}") for rank, row in rows]
    _write_table(directory / "top.tsv", ("rank", "token", "count", "share"), top)
    _write_table(directory / "zipf.tsv", ("rank", "count"), statistics.zipf(spectrum))
    growth = [(tokens, f"{types:.1f}") for tokens, types in statistics.growth(spectrum)]
    _write_table(directory / "growth.tsv", ("tokens", "types"), growth)
    coverage = [(size, f"{share:.6f}") for size, share in statistics.coverage(spectrum)]
    _write_table(directory / "coverage.tsv", ("size", "share"), coverage)
    _write_table(directory / "lengths.tsv", ("tokens", "documents"), sorted(counts.lengths.items()))
    file_tools.write_json(directory / "statistics.json", counts.statistics)


def summary(counts: Counts) -> str:
    """Documents, tokens, types and the ten most frequent tokens, as a few lines of text."""
    lines = [f"{counts.statistics[key]:>12,} {key}" for key in ("documents", "tokens", "types")]
    if counts.statistics["replaced"]:
        lines.append(
            f"{counts.statistics['replaced']:>12,} undecodable sequences of bytes, counted as U+FFFD"
        )
    return "\n".join(
        [*lines, *(f"{row['count']:>12,} {_escaped(row[TOKEN])}" for row in counts.head(10).to_pylist())]
    )


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    lines = ("\t".join(map(str, row)) + "\n" for row in (columns, *rows))
    path.write_text("".join(lines), encoding="utf-8")


def _escaped(token: str) -> str:
    """A token as a field of a table of lines."""
    return token.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


@functools.cache
def _code_version() -> str:
    here = Path(__file__).parent
    names = (
        "inputs",
        "shards",
        "tables",
        "normalisation",
        "lexicon",
        "chinese",
        "tokenizers",
        "counting",
        "runs",
    )
    return file_tools.hash_of([here / f"{name}.py" for name in names], here)
