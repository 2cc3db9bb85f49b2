"""Ray clusters of a test's own, started as a person would start them: `ray start`, a token, an address."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MAX_STARTS = 3
UP = 120  # seconds
ALL_UP = """
import time, ray
ray.init(address="{address}", logging_level=40)
while sum(node["Alive"] for node in ray.nodes()) < {nodes}:
    time.sleep(0.1)
"""


@dataclass(frozen=True)
class RayCluster:
    """Where it is, the environment of who may join it, and the process of each node, the head first."""

    address: str
    environment: dict[str, str]
    nodes: list[subprocess.Popen]


@contextlib.contextmanager
def ray_cluster(temp: Path, cpus: tuple[int, ...], hidden: Path | None = None) -> Iterator[RayCluster]:
    """A cluster with a node for each of `cpus`; `temp` has a short name, since a Unix socket allows 107 bytes.

    All nodes but the head see an empty directory for `hidden`.
    """
    temp.mkdir(exist_ok=True)
    (temp / "token").write_text("t" * 64)
    plain = {name: value for name, value in os.environ.items() if name != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
    access = plain | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(temp / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    for _ in range(MAX_STARTS):
        with contextlib.ExitStack() as stack:
            cluster = _started(stack, temp, access, cpus, hidden)
            if _is_up(cluster):
                yield cluster
                return
    raise TimeoutError("no Ray cluster has come up, this machine is too busy")


def _started(
    stack: contextlib.ExitStack,
    temp: Path,
    access: dict[str, str],
    cpus: tuple[int, ...],
    hidden: Path | None,
) -> RayCluster:
    """A cluster that is coming up, until the stack is closed."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    as_head = ["--head", "--port", str(port), "--include-dashboard", "false", "--temp-dir", str(temp / "c")]
    nodes = []
    for number, size in enumerate(cpus):
        words = ["--address", address] if number else as_head
        nodes.append(
            start_node([*words, "--num-cpus", str(size), "--block"], access, hidden if number else None)
        )
        stack.callback(end_family, nodes[-1])
        wait_for_port(port)
    return RayCluster(address, access, nodes)


def _is_up(cluster: RayCluster) -> bool:
    """Whether all nodes come to life; on a busy machine Ray may give up one of its own that is slow."""
    up = ALL_UP.format(address=cluster.address, nodes=len(cluster.nodes))
    with contextlib.suppress(subprocess.TimeoutExpired):
        return not subprocess.run([sys.executable, "-c", up], env=cluster.environment, timeout=UP).returncode
    return False


def start_node(words: list[str], environment: dict[str, str], hidden: Path | None) -> subprocess.Popen:
    """`ray start`, in a session of its own; an empty file system lies over `hidden`."""
    hide = (
        ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', hidden] if hidden else []
    )
    return subprocess.Popen(
        [*hide, Path(sys.executable).parent / "ray", "start", *words],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def can_mount() -> bool:
    """Whether a node of ours can be given a view of the file system of its own."""
    return bool(shutil.which("unshare")) and not subprocess.run(["unshare", "--mount", "true"]).returncode


def end_family(process: subprocess.Popen) -> None:
    """Kill a process and all below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()


def free_port() -> int:
    """A port that nobody listens on, and that the system gives to no outgoing connection meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)  # below them are Ray's own, above those of connections
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def wait_for_port(port: int) -> None:
    """Until somebody listens on it."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port}")


def until(is_so, process: subprocess.Popen) -> None:
    """Wait for something that must come to be before a process ends."""
    deadline = time.monotonic() + 600
    while not is_so():
        assert process.poll() is None, "the training ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
