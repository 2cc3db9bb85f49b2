"""Counting on Ray actors under a supervisor that survives the death of any of them; the corpus layer's only Ray import.

An actor reads its own shards and holds nothing between them, so a dead one costs the shards it had in hand. They are
handed out again; since a shard's run is named by its content, doing it twice changes nothing.
"""

import contextlib
import logging
import os
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from genpipe.corpus.shards import Shard
from genpipe.errors import BadInput

CALLS_IN_FLIGHT = 2  # an actor: one that runs, one that waits, so that it never idles
MAX_DEATHS = 3  # of actors, before their shard is given up
MAX_STARTS = 3  # of a local cluster
SECONDS_TO_COMPLAIN = 30  # without an actor

Result = TypeVar("Result")
Died = (RayActorError, OutOfMemoryError)


def count_on_actors(
    count: Callable[[Shard], Result],
    shards: Sequence[Shard],
    workers: int,
    done: Callable[[Shard, Result], None],
) -> list[Result]:
    """`count(shard)` of every shard, in the order of `shards`, computed by `workers` actors; `done` hears of each once.

    The cluster is the one of RAY_ADDRESS, or a local one that ends with this call. A shard that ends MAX_DEATHS actors
    is a BadInput that names it, raised when all others are finished.
    """
    with cluster(workers):
        supervisor = _Supervisor(count, shards, done)
        try:
            return supervisor.run(min(workers, len(shards)))
        finally:
            supervisor.dismiss()


class _Actor:
    """What runs in a worker process."""

    def __init__(self, count: Callable[[Shard], Any]) -> None:
        self._count = count

    def ready(self) -> None:
        """Answers once the process is up."""

    def count(self, shard: Shard) -> Any:
        """The result of one shard."""
        return self._count(shard)


@dataclass(eq=False)
class _Worker:
    """An actor as the supervisor sees it: its calls in the order they were made; None is the call to `ready`."""

    handle: Any
    calls: dict[Any, int | None] = field(default_factory=dict)
    is_ready: bool = False


class _Supervisor(Generic[Result]):
    """Hands out shards, replaces dead actors, and gives up on a shard that kills them."""

    def __init__(
        self, count: Callable[[Shard], Result], shards: Sequence[Shard], done: Callable[[Shard, Result], None]
    ) -> None:
        self.count = count
        self.shards = shards
        self.done = done
        self.waiting = deque(range(len(shards)))
        self.results: dict[int, Result] = {}
        self.deaths: Counter[int | None] = Counter()
        self.given_up: dict[int, str] = {}
        self.workers: list[_Worker] = []

    def run(self, workers: int) -> list[Result]:
        """All results, once every shard is counted or given up."""
        for _ in range(workers):
            self._hire()
        while len(self.results) + len(self.given_up) < len(self.shards):
            calls = {call: worker for worker in self.workers for call in worker.calls}
            finished, _ = ray.wait(list(calls), num_returns=1, timeout=SECONDS_TO_COMPLAIN)
            if finished:
                self._settle(calls[finished[0]], finished[0])
                self._hand_out()
            elif not any(worker.is_ready for worker in self.workers):
                print(
                    "count: waiting for a Ray actor; has the cluster a free CPU?", file=sys.stderr, flush=True
                )
        if self.given_up:
            raise BadInput("; ".join(self._obituary(index) for index in sorted(self.given_up)))
        return [self.results[index] for index in range(len(self.shards))]

    def dismiss(self) -> None:
        """End the actors that are left."""
        for worker in self.workers:
            ray.kill(worker.handle)

    def _hire(self) -> None:
        actor: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        worker = _Worker(actor.remote(self.count))
        # a shard goes only to an actor that runs: one that the cluster has no room for must not hold any
        worker.calls[worker.handle.ready.remote()] = None
        self.workers.append(worker)

    def _hand_out(self) -> None:
        for worker in self.workers:
            while worker.is_ready and self.waiting and len(worker.calls) < CALLS_IN_FLIGHT:
                index = self.waiting.popleft()
                worker.calls[worker.handle.count.remote(self.shards[index])] = index

    def _settle(self, worker: _Worker, call: Any) -> None:
        try:
            result = _outcome(call)
        except Died as error:
            self._bury(worker, error)
            return
        index = worker.calls.pop(call)
        worker.is_ready = True
        self.deaths.pop(index, None)
        if index is not None:
            self._keep(index, result)

    def _keep(self, index: int, result: Result) -> None:
        self.results[index] = result
        self.done(self.shards[index], result)

    def _bury(self, worker: _Worker, error: Exception) -> None:
        self.workers.remove(worker)
        with contextlib.suppress(*Died):
            ray.kill(worker.handle)  # one that is only out of reach must not go on
        lost: list[int | None] = []
        for call, index in worker.calls.items():
            try:
                result = _outcome(call)
            except Died:
                lost.append(index)
            else:
                if index is not None:
                    self._keep(index, result)
        self._blame(lost[0], error)  # calls run in order: the first that is lost was running
        self.waiting.extendleft(
            index for index in reversed(lost) if index is not None and index not in self.given_up
        )
        if self.waiting:
            self._hire()

    def _blame(self, index: int | None, error: Exception) -> None:
        reason = str(error).strip().splitlines()[0]
        self.deaths[index] += 1
        if self.deaths[index] < MAX_DEATHS:
            print(
                f"count: a worker process ended ({reason}); its shards are handed out again", file=sys.stderr
            )
        elif index is None:
            raise RuntimeError(f"{MAX_DEATHS} Ray actors ended before they were ready: {error}")
        else:
            self.given_up[index] = reason

    def _obituary(self, index: int) -> str:
        return (
            f"{self.shards[index]}: ended {MAX_DEATHS} worker processes ({self.given_up[index]}), all other shards are "
            "counted; find the document with smaller shards (shard_bytes), or see what happens with 0 workers"
        )


def _outcome(call: Any) -> Any:
    try:
        return ray.get(call)
    except RayTaskError as error:
        if isinstance(error.cause, BadInput):
            raise BadInput(str(error.cause)) from None  # the one line, without the actor's traceback
        raise


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[None]:
    """A Ray cluster with room for `workers` actors: the one that is up, that of RAY_ADDRESS, or a local one."""
    if ray.is_initialized():
        yield
        return
    _start(workers)
    try:
        yield
    finally:
        ray.shutdown()


def _start(workers: int) -> None:
    # Ray's niceness of 15 would starve the actors beside any other program; the last one spares a FutureWarning
    quiet = {
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    # never a bare ray.init(): it joins whatever cluster it finds on the machine
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        _start_local(workers)
    else:
        _join(address)


def _start_local(workers: int) -> None:
    for attempt in range(MAX_STARTS):
        try:
            ray.init(
                address="local",
                num_cpus=max(workers, os.cpu_count() or 1),  # more actors than cores run too, only slower
                object_store_memory=100 << 20,  # only file names pass through it
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception as error:  # a bare Exception: Ray allows its node 30 s, too few on a busy machine
            if "timed out during startup" not in str(error):
                raise
            print(f"count: Ray did not start in time, attempt {attempt + 1} of {MAX_STARTS}", file=sys.stderr)
    raise BadInput("Ray did not start, this machine is too busy; try again later, or count with 0 workers")


def _join(address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except OSError as error:  # a refused or timed-out connection
        reason = str(error).strip().splitlines()[0]
        raise BadInput(
            f"RAY_ADDRESS: no Ray cluster answers at {address} ({reason}); start one, or unset it"
        ) from None


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in address:  # Ray itself would try for minutes
        socket.create_connection((host, int(port)), timeout=10).close()
