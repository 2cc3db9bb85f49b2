"""Counting on two actors against the serial loop with the same tokenizer and one Counter, in alternated rounds.

python -m benchmarks.corpus FILE [--field text] [--rounds 5] [--workers 2]
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from genpipe.corpus import actors, counting, shards
from genpipe.corpus.tokenizers import split_chinese, tokenizer

SHARD_BYTES = 1 << 20


def serial(path: Path, field: str) -> dict[str, int]:
    """The peer: one process, one Counter, a document at a time."""
    counts: Counter[str] = Counter()
    for shard in shards.cut(path, SHARD_BYTES):
        for text in shards.documents(shard, shards.read(shard), field):
            counts.update(split_chinese(text))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def ours(path: Path, field: str, workers: int) -> dict[str, int]:
    """genpipe's way, nothing reused: runs on disk, merged and ordered."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
        table, _ = counting.count_all(
            [path], field=field, tokenizer=tokenizer("jieba"), shard_bytes=SHARD_BYTES, workers=workers,
            scratch=Path(scratch), name="count",
        )  # fmt: skip
    return dict(zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True))


def timed(count: Callable[[], dict[str, int]]) -> tuple[float, dict[str, int]]:
    """Wall seconds of one call, and its result."""
    start = time.perf_counter()
    counts = count()
    return time.perf_counter() - start, counts


def main() -> None:
    """Print medians, spread and ratio; the cluster is up before the clock starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--field", default="text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    path, field = arguments.file.resolve(), arguments.field
    ways: dict[str, Callable[[], dict[str, int]]] = {
        "serial": lambda: serial(path, field),
        "in process": lambda: ours(path, field, 0),
        f"{arguments.workers} actors": lambda: ours(path, field, arguments.workers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with actors.cluster(arguments.workers):
        ways[f"{arguments.workers} actors"]()  # warms the page cache and Ray's pool of processes
        for _ in range(arguments.rounds):
            results = []
            for name, count in ways.items():
                wall, counts = timed(count)
                seconds[name].append(wall)
                results.append(counts)
            if results.count(results[0]) < len(results):
                raise SystemExit("the counts differ")
    report(seconds, path.stat().st_size / 1e6)


def report(seconds: dict[str, list[float]], megabytes: float) -> None:
    """One line a way: median, fastest and slowest seconds, MB/s, and how often as fast as the serial loop."""
    base = statistics.median(seconds["serial"])
    for name, walls in seconds.items():
        median = statistics.median(walls)
        print(
            f"{name:12} {median:6.2f} s ({min(walls):.2f} to {max(walls):.2f})  {megabytes / median:6.1f} MB/s  {base / median:5.2f}x"
        )


if __name__ == "__main__":
    main()
