"""One Ray cluster for the stages of a flow: its start is paid once. It ends with the last of them, or with the flow.

It is started apart from this process, in a directory of its own, listens on the loopback interface only and lets in who
has its token. Stages meet it by their environment alone; one that is started after it died has a cluster of its own.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import psutil

from genpipe import numerics
from genpipe.cores import cores
from genpipe.graph import Plan
from genpipe.params.project import Params
from tasks import guard

STARTUP_S = 120.0  # a busy machine takes its time; stages then start clusters of their own
WORTH_IT = 2  # stages
NAME = (
    "gpray"  # of its directory, before the number of the flow's process; short, as Ray's sockets lie below it
)
GRACE = 1.0  # seconds to end in; Ray has nothing to save, and waits for itself
OBJECT_STORE_BYTES = 100 << 20  # as a stage's own cluster has; what is larger goes by way of the disk
SETTINGS = {  # as those of a stage's own cluster in genpipe/corpus/actors.py
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
# Ray's name for "this machine alone, on 127.0.0.1"; nothing else makes a Linux node listen on the loopback interface only
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# variables by which a stage meets the cluster
MEETING = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", *LOOPBACK)
NOTHING: Mapping[str, str] = MappingProxyType({})


class Cluster:
    """A cluster that is starting, up, or dead."""

    def __init__(
        self, directory: Path, cpus: int, num_users: int, settings: Mapping[str, str] = NOTHING
    ) -> None:
        """`num_users` stages will use it."""
        # Ray opens its own directory to all users of the machine; the token stays beside it, where nobody else looks
        rays = directory / "r"
        self._token, self._address = directory / "token", rays / "ray_current_cluster"
        self._token.touch(mode=0o600)
        self._token.write_text(secrets.token_hex(32), encoding="utf-8")
        self._ready = threading.Lock()
        self._num_users = num_users
        self._has_started = False
        self._log = directory / "ray.log"
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                guard.guarded(_command(rays, cpus), grace=GRACE),
                env={**os.environ, **SETTINGS, **settings, **self._access()},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def environment(self) -> dict[str, str]:
        """How a stage meets the cluster, once it is up; empty when it is dead or does not start."""
        with self._ready:
            self._has_started = self._has_started or self._wait()
            if not self._has_started or not self._answers():
                return {}
        return {"RAY_ADDRESS": self._address.read_text(encoding="utf-8").strip(), **self._access()}

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "no word"

    def leave(self) -> None:
        """One of its stages has ended; with the last one it ends too."""
        with self._ready:
            self._num_users -= 1
            if not self._num_users:
                self._ask_to_end()

    def end(self) -> None:
        """End it; returns when nothing of it is left."""
        self._ask_to_end()
        self._process.wait()

    def _ask_to_end(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _access(self) -> dict[str, str]:
        return {**LOOPBACK, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self._token)}

    def _wait(self) -> bool:
        deadline = time.monotonic() + STARTUP_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._address.exists() and self._answers():
                return True
            time.sleep(0.05)
        return False

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            return False
        host, _, port = self._address.read_text(encoding="utf-8").strip().rpartition(":")
        with suppress(OSError, ValueError), socket.create_connection((host, int(port)), timeout=5):
            return True
        return False


@contextmanager
def shared(params: Params, plans: Iterable[Plan], max_parallel: int) -> Iterator[Cluster | None]:
    """The cluster of all stale stages that use Ray, where there are enough of them and the user has named none."""
    stale = [stage for plan in plans for stage in plan.stale]
    settings = params.cluster
    users = [stage for stage in stale if stage.needs.ray and settings.is_on_ray(stage.name)]
    if not settings.workers or len(users) < WORTH_IT or os.environ.get("RAY_ADDRESS"):
        yield None
        return
    with _private_directory() as directory:
        # as many as stages may want at once: one that waits for another's would be timed out
        cpus = max(cores(), settings.workers * max_parallel)
        cluster = Cluster(directory, cpus, len(users), numerics.settings(params.numerics))
        try:
            yield cluster
        finally:
            cluster.end()


def _command(directory: Path, cpus: int) -> list[str]:
    return [
        *(
            sys.executable,
            "-P",
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
        ),
        *("--node-ip-address=127.0.0.1", "--port=0", f"--temp-dir={directory}", "--include-dashboard=false"),
        *(f"--num-cpus={cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
    ]


@contextmanager
def _private_directory() -> Iterator[Path]:
    """A new directory with a short name: Ray's sockets are below it, and the system allows them 107 characters."""
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{NAME}-*"):  # of flows that were killed
        pid = left.name.split("-")[1]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{NAME}-{os.getpid()}-", ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)
