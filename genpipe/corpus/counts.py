"""Exact word counts of texts: shards are counted by whoever works, the runs added up, the table written."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from genpipe import files as file_tools
from genpipe.corpus import runs as sorted_runs
from genpipe.corpus.counting import Counting, Statistics, range_task, shard_task
from genpipe.corpus.executors import MB_PER_S, Where, executor
from genpipe.corpus.inputs import Input, find_inputs
from genpipe.corpus.runs import TOKEN, Part, Run
from genpipe.corpus.shards import Shard, cut
from genpipe.corpus.tasks import Executor
from genpipe.corpus.tokenizers import corpus_tokenizer, definition_sha256, inputs_of
from genpipe.progress import Progress

if TYPE_CHECKING:  # Pydantic takes a while to import
    from genpipe.params.cluster import Cluster
    from genpipe.params.corpora import Corpus

TOP = 1000  # rows of top.tsv


@dataclass(frozen=True)
class Counts:
    """The counts of a corpus: parts to be written by count, and what is known of the text."""

    parts: list[Part]
    schema: pl.Schema
    statistics: Statistics
    lengths: dict[int, int]  # how many documents have how many tokens

    def rows(self) -> pl.LazyFrame:
        """All rows, by count descending, then by token."""
        return sorted_runs.by_count(self.parts) if self.parts else pl.LazyFrame(schema=self.schema)

    def write(self, path: Path, top: int | None = None) -> None:
        """Write Parquet: by count descending, then token by code point; `top` rows, or all."""
        sorted_runs.write_table(path, self.rows() if top is None else self.rows().head(top))

    def head(self, rows: int) -> pl.DataFrame:
        """The most frequent tokens."""
        return self.rows().head(rows).collect(engine="streaming")


def count_corpus(root: Path, name: str, corpus: "Corpus", cluster: "Cluster") -> None:
    """Write artifacts/counts/NAME: counts.parquet, top.tsv, statistics.json, and the curves of the corpus as TSV."""
    dataset = root / "artifacts" / "datasets" / corpus.dataset
    files = files_of(dataset, corpus.files, f"corpora.{name}")
    out = root / "artifacts" / "counts" / name
    file_tools.refuse_inputs(out, inputs_of(root, corpus))
    file_tools.require_ours(out, file_tools.TABLES)
    counting = Counting(corpus_tokenizer(root, corpus), scratch_of(root), memory=cluster.memory_mb << 20)
    with counted(
        find_inputs(files, field=corpus.field),
        counting,
        shard_bytes=corpus.shard_bytes,
        workers=cluster.workers,
        where=cluster.executor_of(f"count@{name}"),
        name=f"count {name}",
    ) as counts:
        with file_tools.new_directory(out, file_tools.TABLES) as directory:
            counts.write(directory / "counts.parquet")
            write_figures(counts, directory)
            if corpus.file:  # what is made of these counts depends on the content of that file too
                sha256 = definition_sha256(corpus.tokenizer, root / corpus.file)
                file_tools.write_json(directory / file_tools.TOKENIZER_HASH, {"sha256": sha256})
        print(summary(counts))


def files_of(dataset: Path, names: Sequence[str], where: str) -> list[str]:
    """The files of a data set that the block `where` of params.yaml names."""
    remedy = f"make it first: genpipe prepare {dataset.name}"
    if there := sorted(path.name for path in dataset.glob("*.jsonl")):
        remedy = f"correct {where}.files: the data set has {', '.join(there)}"
    return [str(file_tools.existing(dataset / name, remedy)) for name in names]


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
    tasks = [shard_task(shard, counting) for shard in shards]
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
    at_once = max(workers, 1)
    turns = math.ceil(counting.ranges(runs) / at_once)  # in each of which every worker has a range
    ranges = sorted_runs.choose_ranges(distinct, turns * at_once)
    tasks = [
        range_task(f"{name}: range {i}", runs, within, counting, directory / f"{i}.arrow")
        for i, within in enumerate(ranges)
    ]
    if len(tasks) == 1:
        return [tasks[0].work()]
    with Progress(f"{name}, adding up", len(tasks), "ranges") as progress:
        return does.run(tasks, lambda number, part: progress.reach(progress.done + 1))


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


def scratch_of(root: Path) -> Path:
    """Where the runs of a project lie."""
    return root.resolve() / ".genpipe" / "counts"


def write_figures(counts: Counts, directory: Path) -> None:
    """What people look at: the top words, Zipf plot, growth, coverage and lengths, as tables."""
    from genpipe.corpus import statistics  # and with it NumPy

    spectrum = statistics.spectrum_of(counts.rows())
    tokens = counts.statistics["tokens"]
    rows = enumerate(counts.head(TOP).iter_rows(named=True), start=1)
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
        [
            *lines,
            *(f"{row['count']:>12,} {_escaped(row[TOKEN])}" for row in counts.head(10).iter_rows(named=True)),
        ]
    )


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    lines = ("\t".join(map(str, row)) + "\n" for row in (columns, *rows))
    path.write_text("".join(lines), encoding="utf-8")


def _escaped(token: str) -> str:
    """A token as a field of a table of lines."""
    return token.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
