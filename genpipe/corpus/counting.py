"""Exact word counts: every shard becomes one sorted run file, and the runs are added up.

A run is named by the hash of all that it depends on and is written whole or not at all. So counting a shard twice
changes nothing, a finished shard survives a crash, and the counts depend neither on who counted nor in which order.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genpipe import files as file_tools
from genpipe.corpus.shards import Shard, cut, documents, read
from genpipe.corpus.tokenizers import Tokenizer, corpus_tokenizer
from genpipe.params.corpora import Corpus
from genpipe.progress import Progress

TOP = 1000  # rows of top.tsv
ZIPF_RANKS = 200  # rows of zipf.tsv, at most

Statistics = dict[str, int]


@dataclass(frozen=True)
class Run:
    """The counts of one shard: a sorted Arrow file, and what is in it."""

    path: Path
    documents: int
    characters: int
    tokens: int


def count_shard(shard: Shard, *, field: str, tokenizer: Tokenizer, scratch: Path) -> Run:
    """The run of a shard: the file in `scratch` if it was counted before, else counted now."""
    data = read(shard)
    path = scratch / f"{_run_key(shard, data, field, tokenizer.version)}.arrow"
    try:
        return _open_run(path)
    except (FileNotFoundError, pa.ArrowInvalid):  # not counted yet, or cut off by a power failure
        pass
    counts: Counter[str] = Counter()
    texts = list(documents(shard, data, field))
    for tokens in tokenizer.split_all(texts):
        counts.update(tokens)
    run = Run(path, len(texts), sum(map(len, texts)), counts.total())
    _write_run(run, counts)
    return run


def merge(runs: Iterable[Run]) -> pa.Table:
    """All runs added up: columns token, count; by count descending, then token by code point."""
    tables = [pa.ipc.open_file(pa.memory_map(str(run.path))).read_all() for run in runs]
    if not tables:
        return pa.table({"token": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
    summed = pa.concat_tables(tables).group_by("token").aggregate([("count", "sum")])
    table = summed.rename_columns({"count_sum": "count"}).select(["token", "count"])
    # UTF-8 bytes sort like code points; a token occurs once, so the order is total
    return table.sort_by([("count", "descending"), ("token", "ascending")]).combine_chunks()


def count_all(
    paths: Sequence[Path],
    *,
    field: str,
    tokenizer: Tokenizer,
    shard_bytes: int,
    workers: int,
    scratch: Path,
    name: str,
) -> tuple[pa.Table, Statistics]:
    """Counts (as `merge` orders them) and statistics of text files, by `workers` Ray actors or, with 0, in process."""
    shards = [shard for path in paths for shard in cut(path.resolve(), shard_bytes)]
    scratch.mkdir(parents=True, exist_ok=True)
    count = functools.partial(
        count_shard,
        field=field,
        tokenizer=tokenizer,
        scratch=scratch.resolve(),
    )
    with Progress(name, sum(shard.size for shard in shards) / 1e6, "MB") as progress:
        tokens = 0

        def done(shard: Shard, run: Run) -> None:
            nonlocal tokens
            tokens += run.tokens
            progress.reach(progress.done + shard.size / 1e6, f"{tokens:,} tokens")

        runs = _count_shards(count, shards, workers, done)
    table = merge(runs)
    return table, _statistics(table, runs, shards)


def count_corpus(root: Path, name: str, corpus: Corpus, workers: int) -> None:
    """Write artifacts/counts/NAME: counts.parquet, top.tsv, zipf.tsv, statistics.json."""
    dataset = root / "artifacts" / "datasets" / corpus.dataset
    remedy = f"make it first: genpipe prepare {corpus.dataset}"
    table, statistics = count_all(
        [file_tools.existing(dataset / file, remedy) for file in corpus.files],
        field=corpus.field,
        tokenizer=corpus_tokenizer(root, corpus),
        shard_bytes=corpus.shard_bytes,
        workers=workers,
        scratch=root / ".genpipe" / "counts",
        name=f"count {name}",
    )
    with file_tools.new_directory(root / "artifacts" / "counts" / name) as directory:
        pq.write_table(table, directory / "counts.parquet", compression="zstd")
        _write_top(directory / "top.tsv", table, statistics["tokens"])
        _write_zipf(directory / "zipf.tsv", table)
        file_tools.write_json(directory / "statistics.json", statistics)
    print(summary(table, statistics))


def count_files(
    files: Sequence[Path],
    *,
    field: str,
    tokenizer: Tokenizer,
    shard_bytes: int,
    workers: int,
    scratch: Path,
    out: Path,
) -> None:
    """Count text files into the Parquet file `out` and print what was found."""
    table, statistics = count_all(
        files,
        field=field,
        tokenizer=tokenizer,
        shard_bytes=shard_bytes,
        workers=workers,
        scratch=scratch,
        name="count",
    )
    with file_tools.new_file(out) as partial:
        pq.write_table(table, partial, compression="zstd")
    print(summary(table, statistics))
    print(f"all counts are in {out}")


def summary(table: pa.Table, statistics: Statistics) -> str:
    """Documents, tokens, types and the ten most frequent tokens, as a few lines of text."""
    top = table.slice(0, 10).to_pylist()
    lines = [f"{statistics[key]:>12,} {key}" for key in ("documents", "tokens", "types")]
    return "\n".join([*lines, *(f"{row['count']:>12,} {_escaped(row['token'])}" for row in top)])


def _count_shards(
    count: Callable[[Shard], Run], shards: Sequence[Shard], workers: int, done: Callable[[Shard, Run], None]
) -> list[Run]:
    if workers and len(shards) > 1:  # one shard is counted before a cluster has started
        from genpipe.corpus.actors import count_on_actors  # Ray takes a while to import

        return count_on_actors(count, shards, workers, done)
    runs = []
    for shard in shards:
        runs.append(count(shard))
        done(shard, runs[-1])
    return runs


def _run_key(shard: Shard, data: bytes, field: str, version: str) -> str:
    named = field if shard.file.suffix == ".jsonl" else ""
    key = hashlib.sha256(repr((shard.file.suffix, named, f"{version} {_code_version()}")).encode())
    key.update(data)
    return key.hexdigest()


@functools.cache
def _code_version() -> str:
    here = Path(__file__).parent
    names = ("shards.py", "normalisation.py", "lexicon.py", "tokenizers.py", "counting.py")
    return file_tools.hash_of([here / name for name in names], here)


def _open_run(path: Path) -> Run:
    with pa.memory_map(str(path)) as source:
        about = pa.ipc.open_file(source).schema.metadata
        return Run(path, int(about[b"documents"]), int(about[b"characters"]), int(about[b"tokens"]))


def _write_run(run: Run, counts: Counter[str]) -> None:
    tokens = sorted(counts)
    about = {"documents": str(run.documents), "characters": str(run.characters), "tokens": str(run.tokens)}
    columns = {
        "token": pa.array(tokens, pa.string()),
        "count": pa.array([counts[t] for t in tokens], pa.int64()),
    }
    table = pa.table(columns).replace_schema_metadata(about)
    with (
        file_tools.new_file(run.path) as partial,
        pa.ipc.new_file(
            str(partial), table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
        ) as writer,
    ):
        writer.write_table(table)


def _statistics(table: pa.Table, runs: Sequence[Run], shards: Sequence[Shard]) -> Statistics:
    return {
        "documents": sum(run.documents for run in runs),
        "characters": sum(run.characters for run in runs),
        "tokens": sum(run.tokens for run in runs),
        "types": table.num_rows,
        "bytes": sum(shard.size for shard in shards),
    }


def _write_top(path: Path, table: pa.Table, tokens: int) -> None:
    rows = enumerate(table.slice(0, TOP).to_pylist(), start=1)
    lines = [
        f"{rank}\t{_escaped(row['token'])}\t{row['count']}\t{row['count'] / tokens:.8f}\n"
        for rank, row in rows
    ]
    path.write_text("rank\ttoken\tcount\tshare\n" + "".join(lines), encoding="utf-8")


def _write_zipf(path: Path, table: pa.Table) -> None:
    counts = table["count"].to_numpy()
    ranks = (
        np.unique(np.geomspace(1, len(counts), ZIPF_RANKS).round().astype(np.int64)) if len(counts) else []
    )
    path.write_text(
        "rank\tcount\n" + "".join(f"{rank}\t{counts[rank - 1]}\n" for rank in ranks), encoding="utf-8"
    )


def _escaped(token: str) -> str:
    return (
        token.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    )  # a row of a table is one line
