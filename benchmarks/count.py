"""genpipe's side of the comparisons: one count through its Python API, in a process of its own, nothing reused.

python -m benchmarks.count FILE --tokenizer NAME --where bare|here|local|ray --workers N --out COUNTS.parquet

bare: a loop over the same shards, one Counter, no run files, nobody to watch over it. here: this process, with run files.
ray: the cluster is up, and has counted something, before the clock starts.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from genpipe.corpus.counting import Counting, counted
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import cut, read
from genpipe.corpus.tokenizers import tokenizer

WARM_BYTES = 1 << 20


def count(arguments: argparse.Namespace, file: Path, workers: int, out: Path) -> float:
    """Seconds of counting a file with fresh scratch, the table written."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        counting = Counting(tokenizer(arguments.tokenizer), Path(scratch), memory=arguments.memory << 20)
        started = time.perf_counter()
        with counted(
            find_inputs([str(file)]),
            counting,
            shard_bytes=arguments.shard << 20,
            workers=workers,
            where="ray" if arguments.where == "ray" else "local",
            name="count",
        ) as counts:
            counts.write(out)
        return time.perf_counter() - started


def count_bare(arguments: argparse.Namespace, out: Path) -> float:
    """Seconds of the loop that anybody would write around the same tokenizer and shards."""
    split = tokenizer(arguments.tokenizer)
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    for source in find_inputs([str(arguments.file)]):
        for shard in cut(source, arguments.shard << 20):
            counts.update(chain.from_iterable(split.split_all(read(shard).documents())))
    tokens, numbers = zip(*sorted(counts.items(), key=lambda item: (-item[1], item[0])), strict=True)
    pq.write_table(pa.table({"token": tokens, "count": numbers}), out)
    return time.perf_counter() - started


@contextlib.contextmanager
def warm_cluster(arguments: argparse.Namespace) -> Iterator[None]:
    """A Ray cluster on which the beginning of the file has been counted once."""
    from genpipe.corpus.actors import cluster

    with cluster(arguments.workers), tempfile.TemporaryDirectory() as scratch:
        beginning = Path(scratch) / "beginning.txt"
        with arguments.file.open("rb") as file:
            beginning.write_bytes(b"".join(file.readlines(WARM_BYTES)))
        count(arguments, beginning, arguments.workers, Path(scratch) / "warm.parquet")
        yield


def parse(*, with_out: bool = True) -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokenizer", default="jieba")
    parser.add_argument("--where", choices=["bare", "here", "local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard", type=int, default=8, metavar="MIB")
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
        with warm_cluster(arguments) if arguments.where == "ray" else contextlib.nullcontext():
            seconds = count(arguments, arguments.file, workers, arguments.out)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
