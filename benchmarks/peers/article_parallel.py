"""The article's parallel_apply: batches of 1,000 texts through a bounded queue, dicts back, added up in the parent.

The producer never blocks: when the queue is full it empties the other one and tries again; at the end it spins until
as many dicts came back as batches went out. The workers are forked with the tokenizer loaded and never return.
"""

import multiprocessing
import queue
import time
from typing import Any

from common import Split, arguments, batches, documents, finish, splitter

QUEUE = 200  # batches


def work(texts_in: Any, counts_out: Any, split: Split) -> None:
    """What a worker does for ever."""
    while True:
        counts: dict[str, int] = {}
        for text in texts_in.get():
            for token in split(text):
                counts[token] = counts.get(token, 0) + 1
        counts_out.put(counts)


class Apply:
    """The parent: hands out batches and adds up what comes back."""

    def __init__(self, split: Split, workers: int) -> None:
        fork = multiprocessing.get_context("fork")
        self.texts, self.counts = fork.Queue(QUEUE), fork.Queue()
        self.pool = fork.Pool(workers, work, (self.texts, self.counts, split))
        self.total: dict[str, int] = {}
        self.handed_out = self.came_back = 0

    def drain(self) -> None:
        """Add up what is there."""
        for _ in range(self.counts.qsize()):
            for token, count in self.counts.get().items():
                self.total[token] = self.total.get(token, 0) + count
            self.came_back += 1

    def hand_out(self, batch: list[str]) -> None:
        """Put a batch into the queue, whatever it takes."""
        while True:
            try:
                self.texts.put(batch, block=False)
                break
            except queue.Full:
                self.drain()
        self.handed_out += 1
        if self.handed_out % QUEUE == 0:
            self.drain()

    def finish(self) -> dict[str, int]:
        """The counts, once all came back."""
        while self.came_back < self.handed_out:
            self.drain()
        self.pool.terminate()
        return self.total


def main() -> None:
    """Count batches on processes."""
    given = arguments(["jieba", "rjieba", "whitespace"])
    split = splitter(given.tokenizer)
    started = time.perf_counter()
    apply = Apply(split, given.workers)
    for batch in batches(documents(given.file)):
        apply.hand_out(batch)
    finish(apply.finish(), given.out, started)


if __name__ == "__main__":
    main()
