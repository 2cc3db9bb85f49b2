"""Spark on local[N]: tokens by mapPartitions, counted in each partition, added up by reduceByKey."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from common import arguments, finish, splitter

os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])


def counter(tokenizer: str) -> Any:
    """What counts a partition."""

    def count(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
        split = splitter(tokenizer)
        yield from Counter(chain.from_iterable(map(split, lines))).items()

    return count


def main() -> None:
    """Count partitions and add up."""
    given = arguments(["jieba", "rjieba", "whitespace"])
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{given.workers}]")  # pyright: ignore[reportAttributeAccessIssue]
    spark = builder.config("spark.ui.enabled", "false").config("spark.log.level", "ERROR").getOrCreate()
    started = time.perf_counter()
    lines = spark.sparkContext.textFile(f"file://{Path(given.file).resolve()}", given.workers)
    counts = lines.mapPartitions(counter(given.tokenizer)).reduceByKey(lambda a, b: a + b, given.workers)
    finish(dict(counts.collect()), given.out, started)
    spark.stop()


if __name__ == "__main__":
    main()
