"""Where tasks run: here, on processes of this machine, or on Ray; the results are the same."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from genpipe.corpus.tasks import Executor, InProcess, supervised

Where = Literal["auto", "local", "ray"]

IN_PROCESS_S = 2.0  # work that is done before a second process would have helped
LOCAL_S = 60.0  # work for which Ray's start (9 s, 0.5 GB) is too dear
MB_PER_S = {  # of one core with counting, about: what `auto` goes by
    "jieba": 12, "jieba_python": 0.8, "char": 25, "word": 30, "whitespace": 50, "bpe": 8, "wordpiece": 8,
    "unigram": 6, "lexicon": 4, "tagged": 0.2,
}  # fmt: skip


@contextlib.contextmanager
def executor(
    where: Where,
    workers: int,
    tasks: int,
    seconds: float,
    *,
    threads: bool = False,
    shared: Sequence[Path] = (),
) -> Iterator[Executor]:
    """What does `tasks` tasks of about `seconds` seconds of one core, with at most `workers` processes or threads.

    `threads`: the tasks leave Python to others while they work, so that a process has no need of others.
    `shared`: what a worker sees if it sees all that the tasks read and write.
    """
    kind = choose(where, workers, tasks, seconds, threads=threads)
    if kind == "here":
        yield InProcess(workers if threads else 1)
    elif kind == "local":
        from genpipe.corpus.processes import Processes

        with supervised(Processes(), workers) as supervisor:
            yield supervisor
    else:
        from genpipe.corpus.actors import Actors, cluster  # Ray takes a while to import

        with cluster(workers), supervised(Actors(shared), workers) as supervisor:
            yield supervisor


def choose(
    where: Where, workers: int, tasks: int, seconds: float, *, threads: bool = False
) -> Literal["here", "local", "ray"]:
    """Where to run: as asked, and with `auto` by what the work is worth. A cluster that is named is used."""
    if workers == 0 or tasks < 2:
        return "here"
    if where != "auto":
        return where
    if os.environ.get("RAY_ADDRESS"):
        return "ray"
    if threads or seconds < IN_PROCESS_S:
        return "here"
    return "local" if seconds < LOCAL_S else "ray"
