"""datatrove: a reader of byte ranges, a step that counts, tasks on local processes; the parent adds up their files."""

import pickle
import sys
import tempfile
import time
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

from common import arguments, finish, splitter
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger


class Lines(PipelineStep):
    """The documents of one task: datatrove's own readers give whole files to tasks, here is one file for all."""

    name = "lines"
    type = "reader"

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Lines that begin in the task's share of the bytes."""
        size = Path(self.file).stat().st_size
        start, end = size * rank // world_size, size * (rank + 1) // world_size
        with open(self.file, "rb") as file:
            if start:
                file.seek(start - 1)
                file.readline()
            number = 0
            while file.tell() < end:
                yield Document(text=file.readline().decode("utf-8").removesuffix("\n"), id=f"{rank}/{number}")
                number += 1


class Count(PipelineStep):
    """Counts in one Counter a task, and leaves it in a file."""

    name = "count"
    type = "stats"

    def __init__(self, tokenizer: str, directory: str) -> None:
        super().__init__()
        self.tokenizer, self.directory = tokenizer, directory

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Count all documents; none goes on."""
        split = splitter(self.tokenizer)
        counts = Counter(chain.from_iterable(split(document.text) for document in data))
        (Path(self.directory) / f"{rank}.pickle").write_bytes(pickle.dumps(dict(counts)))
        yield from ()


def main() -> None:
    """Run the pipeline and add up."""
    given = arguments(["jieba", "rjieba", "whitespace"])
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        LocalPipelineExecutor(
            pipeline=[Lines(given.file), Count(given.tokenizer, scratch)],
            tasks=given.workers,
            workers=given.workers,
            logging_dir=f"{scratch}/logs",
        ).run()
        total: Counter[str] = Counter()
        for file in sorted(Path(scratch).glob("*.pickle")):
            total.update(pickle.loads(file.read_bytes()))
    finish(total, given.out, started)


if __name__ == "__main__":
    main()
