"""A crew of processes on this machine: no start-up to speak of, and no cluster."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from genpipe import lease
from genpipe.corpus.tasks import ONE_THREAD, Event, Worker
from genpipe.errors import packed, reported, unpacked

_CONTEXT = multiprocessing.get_context(
    "spawn"
)  # a fork would copy the locks of the threads of polars and Arrow


class Process:
    """A worker that is a process of its own."""

    def __init__(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        with _one_thread_each():
            self._process.start()
        theirs.close()

    def give(self, work: Callable[[], Any]) -> None:
        """Hand it a task; that it is dead is seen when it is waited for."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(work)

    def dismiss(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def event(self) -> Event:
        """What it says, or that it is dead."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):  # closed, or cut off within a message
            self._process.join(timeout=10)
            return Event(self, "died", _obituary(self._process.exitcode))
        if kind == "reported":
            raise unpacked(*value)
        if kind == "error":
            raise RuntimeError(f"a worker process failed:\n{value}")
        return Event(self, kind, value)


class Processes:
    """Hires processes of this machine."""

    def hire(self) -> Process:
        """A new process."""
        return Process()

    def wait(self, workers: Sequence[Worker], seconds: float) -> list[Event]:
        """What happened to any of them."""
        by_connection = {worker.connection: worker for worker in workers if isinstance(worker, Process)}
        ready = multiprocessing.connection.wait(list(by_connection), seconds)
        return [
            by_connection[connection].event() for connection in ready if isinstance(connection, Connection)
        ]


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Polars in a process that is started meanwhile has one thread; it would take all cores in each of them."""
    before = dict(os.environ)
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name in ONE_THREAD:
            del os.environ[name]
        os.environ.update(before)


def _serve(connection: Connection) -> None:
    """What runs in the process: one task after another, until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lease.die_with_parent()
    given: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
    # always read: parent and worker that both send more than a pipe holds would wait for each other for ever
    threading.Thread(target=_receive, args=(connection, given), daemon=True).start()
    connection.send(("ready", True))
    while (work := given.get()) is not None:
        connection.send(_outcome(work))


def _receive(connection: Connection, given: queue.SimpleQueue) -> None:
    try:
        with contextlib.suppress(EOFError, OSError):
            while True:
                given.put(connection.recv())
    finally:  # also where a task cannot be unpickled: the process ends, and the parent hears of it
        given.put(None)


def _outcome(work: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "done", work()
    except Exception as error:  # noqa: BLE001 (it is raised again in the parent)
        known = reported(error)
        return ("reported", packed(known)) if known else ("error", traceback.format_exc())


def _obituary(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"
