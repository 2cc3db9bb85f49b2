"""genpipe's side of the comparisons: one count through its Python API, in a process of its own, nothing reused.

python -m benchmarks.count FILE --tokenizer NAME --where bare|here|auto|local|ray --workers N --out COUNTS.parquet

bare: a loop over the same shards, all counts in memory, no run files, nobody to watch over it. here: this process, with run files.
ray: the actors are up, and have counted something, before the clock starts.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from genpipe.corpus.counting import Counting
from genpipe.corpus.counts import counted, counted_by
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.runs import add_up
from genpipe.corpus.shards import cut, read
from genpipe.corpus.tasks import Executor, supervised
from genpipe.corpus.tokenizers import tokenizer

WARM_BYTES = 1 << 20


def count(
    arguments: argparse.Namespace, file: Path, workers: int, out: Path, does: Executor | None = None
) -> float:
    """Seconds of counting a file with fresh scratch, the table written; by `does`, where that is there already."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        counting = Counting(tokenizer(arguments.tokenizer), Path(scratch), memory=arguments.memory << 20)
        started = time.perf_counter()
        inputs = find_inputs([str(file)])
        shard_bytes = arguments.shard << 20 or WARM_BYTES // 8
        with contextlib.ExitStack() as stack:
            if does:
                shards = [shard for source in inputs for shard in cut(source, shard_bytes)]
                block = counted_by(does, shards, counting, workers=workers, name="count")
            else:
                block = counted(
                    inputs,
                    counting,
                    shard_bytes=shard_bytes,
                    workers=workers,
                    where=arguments.where,
                    name="count",
                )
            counts = stack.enter_context(block)
            counts.write(out)
        return time.perf_counter() - started


def count_bare(arguments: argparse.Namespace, out: Path) -> float:
    """Seconds of the same tokenizer over the same shards, all counts in memory, no file before the end."""
    split = tokenizer(arguments.tokenizer)
    started = time.perf_counter()
    frames: list[pl.DataFrame] = []
    for source in find_inputs([str(arguments.file)]):
        for shard in cut(source, arguments.shard << 20):
            for texts in read(shard).blocks(split.block):
                tokens = split.explode(texts).group_by("token").agg(pl.len().alias("count"))
                frames.append(tokens.collect(engine="streaming"))
    counts = add_up(pl.concat(frames)).sort("count", "token", descending=[True, False])
    counts.write_parquet(out)
    return time.perf_counter() - started


@contextlib.contextmanager
def warm_actors(arguments: argparse.Namespace, workers: int) -> Iterator[Executor]:
    """Ray actors that have counted the beginning of the file once."""
    from genpipe.corpus.actors import Actors, cluster

    with (
        cluster(workers),
        supervised(Actors(), workers) as does,
        tempfile.TemporaryDirectory() as scratch,
    ):
        beginning = Path(scratch) / "beginning.txt"
        with arguments.file.open("rb") as file:
            beginning.write_bytes(b"".join(file.readlines(WARM_BYTES)))
        small = argparse.Namespace(**{**vars(arguments), "shard": 0})
        count(small, beginning, workers, Path(scratch) / "warm.parquet", does)
        yield does


def parse(*, with_out: bool = True) -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokenizer", default="jieba")
    parser.add_argument("--where", choices=["bare", "here", "auto", "local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard", type=int, default=2, metavar="MIB")
    parser.add_argument("--memory", type=int, default=256, metavar="MIB")
    if with_out:
        parser.add_argument("--out", type=Path, required=True)
    return parser


def main() -> None:
    """Count once and print the seconds."""
    arguments = parse().parse_args()
    if arguments.where == "bare":
        seconds = count_bare(arguments, arguments.out)
    else:
        workers = 0 if arguments.where == "here" else arguments.workers
        warm = warm_actors(arguments, workers) if arguments.where == "ray" else contextlib.nullcontext()
        with warm as does:
            seconds = count(arguments, arguments.file, workers, arguments.out, does)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
