"""The same training on processes of this machine, forked from one that has imported everything: no cluster to start."""

import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal

import torch

from genpipe import lease
from genpipe.errors import packed, reported, unpacked
from genpipe.training.checkpoint import CHECKPOINTS
from genpipe.training.group import Work, exchange_of, last_words, meet
from genpipe.training.job import Job
from genpipe.training.keeper import MAX_STARTS, given_up
from genpipe.training.runs import Run

MEETING = "meeting"  # below the directory of a run

Kind = Literal["done", "reported", "died", "lost"]
_CONTEXT = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class _Member:
    """A process of the group, and the end of the pipe on which it reports once."""

    process: BaseProcess
    connection: Connection

    def report(self) -> tuple[Kind, tuple[str, str] | str]:
        """How its work ended; it has ended itself where that cannot be read."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return "died", ""


def train_here(work: Work, job: Job, run: Run, size: int) -> None:
    """Call `work(exchange, device, job, run)` on each of `size` processes of this machine.

    When one dies, all start again, at most MAX_STARTS times from one checkpoint. `work` goes on from its own checkpoints.
    Raises the error of genpipe that a process has met.
    """
    starts, words, there = 0, "", _whole_checkpoints(run)
    while starts < MAX_STARTS:
        starts += 1
        with _group(work, job, run, size) as members:
            died = _ending(members)
        if died is None:
            return
        words, before, there = died or words, there, _whole_checkpoints(run)
        if there != before:
            starts = 0
    raise given_up(words)


def _whole_checkpoints(run: Run) -> list[str]:
    """What the last file of each checkpoint is called: others may be all that a killed process has left."""
    return [name for name in run.names(CHECKPOINTS) if name.endswith("/state.json")]


@contextmanager
def _group(work: Work, job: Job, run: Run, size: int) -> Iterator[list[_Member]]:
    """The processes of a group; none of them outlives the block."""
    run.directory.mkdir(parents=True, exist_ok=True)
    meeting = run.directory / MEETING
    meeting.unlink(missing_ok=True)
    members: list[_Member] = []
    try:
        # one by one: those that have started are ended though another one cannot start
        members.extend(_start(work, job, run, (rank, size)) for rank in range(size))
        yield members
    finally:
        for member in members:
            member.process.kill()
        for member in members:
            member.process.join()
            member.connection.close()
        meeting.unlink(missing_ok=True)


def _start(work: Work, job: Job, run: Run, place: tuple[int, int]) -> _Member:
    connection, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_serve, args=(work, job, run, place, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return _Member(process, connection)


def _ending(members: Sequence[_Member]) -> str | None:
    """What a process said before it died; None where all ended well. Raises the error of genpipe that one has met."""
    waiting = {member.connection: member for member in members}
    lost = False
    while waiting:
        for connection in multiprocessing.connection.wait(list(waiting)):
            assert isinstance(connection, Connection)
            kind, value = waiting.pop(connection).report()
            if kind == "reported":
                raise unpacked(*value)
            if kind == "died":
                return str(value)
            # what it lost has died, and is heard of too: that one has the reason
            lost = lost or kind == "lost"
    return "" if lost else None


def _serve(
    work: Work, job: Job, run: Run, place: tuple[int, int], connection: Connection, parent: int
) -> None:
    """What runs in a process: the work, one report, and then nothing until all have reported and the parent ends it.

    One that ended by itself could reset the connection on which another still reads.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lease.die_with_parent()
    if os.getppid() != parent:  # it ended before the line above, whose signal will never come
        os._exit(1)
    connection.send(_report(work, job, run, place))
    signal.pause()


def _report(work: Work, job: Job, run: Run, place: tuple[int, int]) -> tuple[Kind, tuple[str, str] | str]:
    torch.set_num_threads(1)
    try:
        meet((run.directory / MEETING).absolute(), *place)
        # what fsspec has opened does not outlive a fork
        work(exchange_of(job), torch.device("cpu"), job, Run(run.directory, run.storage))
    except Exception as error:  # noqa: BLE001 (the parent raises it, or starts the group again)
        if known := reported(error):
            return "reported", packed(known)
        words = last_words(error)
        return ("lost", "") if words is None else ("died", words)
    return "done", ""
