"""Memory of adding up more than ten million distinct character trigrams, in eight partitions.

python -m benchmarks.reducer TEXT [--memory 256]

Each partition is added up in a process of its own, range by range, as a worker does; what is reported is its peak of resident
memory, and how much of that the libraries take before the work.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from genpipe.corpus.counting import Counting, count_shard, reduce_range
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.runs import Range, Run, choose_ranges
from genpipe.corpus.shards import cut
from genpipe.corpus.tasks import ONE_THREAD
from genpipe.corpus.tokenizers import tokenizer

PARTITIONS = 8
SHARD = 16 << 20


def main() -> None:
    """Count trigrams, add them up in eight processes one after the other, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("--memory", type=int, default=256, metavar="MB")
    given = parser.parse_args()
    os.environ.update(ONE_THREAD)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        counting = Counting(tokenizer("char"), Path(scratch), orders=(3,), memory=given.memory << 20)
        shards = [shard for item in find_inputs([str(given.text)]) for shard in cut(item, SHARD)]
        runs = [count_shard(shard, counting) for shard in shards]
        ranges = choose_ranges(runs, max(PARTITIONS, counting.ranges(runs)))
        print(f"{sum(run.rows for run in runs):,} rows in {len(runs)} runs, {len(ranges)} ranges")
        print("\n| partition | distinct | libraries MB | peak MB | more MB |\n|---|---|---|---|---|")
        context = multiprocessing.get_context("spawn")
        for number in range(PARTITIONS):
            bounds = [len(ranges) * n // PARTITIONS for n in (number, number + 1)]
            with context.Pool(1) as pool:
                found = pool.apply(partition, (runs, ranges[slice(*bounds)], counting))
            types, before, peak = found
            print(f"| {number + 1} | {types:,} | {before:.0f} | {peak:.0f} | {peak - before:.0f} |")


def partition(runs: Sequence[Run], ranges: Sequence[Range], counting: Counting) -> tuple[int, float, float]:
    """Distinct trigrams, and peak memory before and after, of adding up some ranges."""
    before = peak_mb()
    parts = [reduce_range(runs, within, counting, counting.scratch / "part.arrow") for within in ranges]
    return sum(part.types for part in parts), before, peak_mb()


def peak_mb() -> float:
    """The most memory that this process ever had."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    main()
