"""A crew of Ray actors, and the cluster they live on; the corpus layer's only Ray import."""

import atexit
import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# read by Ray when it is imported: a cluster of our own then listens on loopback alone, which it does by default elsewhere
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1" if os.environ.get("RAY_ADDRESS") else "0")

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from genpipe import numerics, own_code
from genpipe.cores import cores
from genpipe.corpus.tasks import ONE_THREAD, Event, Worker
from genpipe.errors import ClusterLost, Unavailable, reported

MAX_STARTS = 3  # of a local cluster
NAME = "gpray"  # of its directory; short, as Ray's sockets lie below it and the system allows them 107 bytes
DIED = (RayActorError, OutOfMemoryError)


class _Actor:
    """What runs in a worker process."""

    def __init__(self) -> None:
        os.environ.update(ONE_THREAD)

    def sees(self, paths: Sequence[Path], code: str) -> bool:
        """Answers once the process is up: whether all these files are there; BadInput where it has other code."""
        own_code.require_same(code)
        return all(map(os.path.exists, paths))

    def do(self, work: Callable[[], Any]) -> Any:
        """The result of one task."""
        return work()


class Actor:
    """A worker that is a Ray actor."""

    def __init__(self, shared: Sequence[Path]) -> None:
        actor: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        self._handle = actor.remote()
        self.calls: deque[Any] = deque([self._handle.sees.remote(shared, own_code.digest())])
        self._is_ready = False

    def give(self, work: Callable[[], Any]) -> None:
        """Hand it a task."""
        self.calls.append(self._handle.do.remote(work))

    def dismiss(self) -> None:
        """End it at once."""
        with contextlib.suppress(*DIED):
            ray.kill(self._handle)

    def event(self) -> Event:
        """What became of its oldest call, which has ended: an actor's calls run in order."""
        try:
            result = ray.get(self.calls[0])
        except DIED as error:
            return Event(self, "died", str(error).strip().splitlines()[0])
        except RayTaskError as error:
            if known := reported(error.cause):
                raise known from None  # without the actor's traceback
            raise
        self.calls.popleft()
        is_first, self._is_ready = not self._is_ready, True
        return Event(self, "ready" if is_first else "done", result)


class Actors:
    """Hires actors of the cluster that is up; who does not see all `shared` files is sent what it needs."""

    def __init__(self, shared: Sequence[Path] = ()) -> None:
        self._shared = shared

    def hire(self) -> Actor:
        """A new actor."""
        _require_own_node()
        return Actor(self._shared)

    def wait(self, workers: Sequence[Worker], seconds: float) -> list[Event]:
        """What happened to one of them."""
        oldest = {worker.calls[0]: worker for worker in workers if isinstance(worker, Actor) and worker.calls}
        ended, _ = ray.wait(list(oldest), num_returns=1, timeout=seconds)
        if not ended:
            _require_own_node()
        return [oldest[call].event() for call in ended]


def _require_own_node() -> None:
    """Raise ClusterLost when this process has lost its Ray node, without which it would wait for ever."""
    here = ray.get_runtime_context().get_node_id()
    if not any(node["NodeID"] == here and node["Alive"] for node in ray.nodes()):
        raise ClusterLost("the Ray node of this process has died; the same command goes on where it stopped")


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
    # Ray opens its directory to all users of the machine, so it lies below one that is closed
    private = tempfile.mkdtemp(
        prefix=f"{NAME}-{os.getpid()}-", dir="/tmp" if len(tempfile.gettempdir()) > 15 else None
    )
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    for attempt in range(MAX_STARTS):
        try:
            ray.init(
                address="local",
                _temp_dir=f"{private}/r",
                num_cpus=max(workers, cores()),  # more actors than cores run too, only slower
                object_store_memory=100 << 20,  # checkpoints that are larger go by way of the disk
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception as error:  # a bare Exception: Ray allows its node 30 s, too few on a busy machine
            if "timed out during startup" not in str(error):
                raise
            print(
                f"genpipe: Ray did not start in time, attempt {attempt + 1} of {MAX_STARTS}", file=sys.stderr
            )
    raise Unavailable("Ray did not start, this machine is too busy; try again later, or use 0 workers")


def _join(address: str) -> None:
    try:
        _knock(address)
        here = {name: os.environ[name] for name in numerics.PORTABLE if name in os.environ}
        # a worker of another node computes as this process does
        workers = {"env_vars": here} if here else None
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=workers)
    except OSError as error:  # a refused or timed-out connection
        reason = str(error).strip().splitlines()[0]
        raise Unavailable(
            f"RAY_ADDRESS: no Ray cluster answers at {address} ({reason}); start one, or unset it"
        ) from None


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in address:  # Ray itself would try for minutes
        socket.create_connection((host, int(port)), timeout=10).close()
