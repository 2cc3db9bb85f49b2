"""Run a command as a group of processes that ends with the one that asked for it, however that one ends.

Killing `dvc` leaves the command of its stage running, and a second copy would then write the same outputs. So a task
starts this guard, which starts the command in a session of its own and ends that whole group when
- its standard input closes: the task closed it, or the task's process is gone, even by SIGKILL;
- it gets SIGTERM, or the time limit is over.
On Linux it adopts what the command leaves behind, so that processes which left the group end as well; and the command
ends with a guard that is killed.

    python guard.py TIMEOUT_SECONDS|- GRACE_SECONDS COMMAND …
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil

GRACE = 20.0  # seconds between SIGTERM and SIGKILL that suffice for a stage to end well
ENDED, TIMED_OUT = 143, 124  # exit statuses, as a shell and timeout(1) give them
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)


class Child(Protocol):
    """What was started; `returncode` is there once it was waited for."""

    pid: int
    returncode: Any  # int | None

    def wait(self) -> int:
        """Wait until it has ended."""
        ...


def main(
    timeout: float | None, grace: float, command: list[str], start: "Callable[..., Child] | None" = None
) -> int:
    """Run `command`, by `start` where that is given; its exit status, or ENDED or TIMED_OUT."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else lambda *_: None
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    child = (start or _start)(command, prctl)
    finished = threading.Thread(target=lambda: (child.wait(), over.set()), daemon=True)
    finished.start()
    threading.Thread(target=lambda: (os.read(0, 1), over.set()), daemon=True).start()
    in_time = over.wait(timeout)
    status = child.returncode
    _end_all(child.pid, 0.0 if status is not None else grace)
    finished.join()
    if not in_time:
        print(f"timed out after {timeout:g} seconds", file=sys.stderr, flush=True)
        return TIMED_OUT
    return ENDED if status is None else status % 256  # a signal is negative: -9 becomes 247


def guarded(command: list[str], timeout: float | None = None, grace: float = GRACE) -> list[str]:
    """`command` under this guard, to be started with a pipe as its standard input, and in a session of its own."""
    limit = "-" if timeout is None else str(timeout)
    return [sys.executable, "-I", __file__, limit, str(grace), *command]


def run(
    command: list[str], root: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What a guarded command printed, and its status; it ends with this process, however that ends."""
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            guarded(command),
            cwd=root,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        printed = process.stdout.read() if process.stdout else ""  # all of it: the guard has ended then
        status = process.wait()
        errors.seek(0)
        return subprocess.CompletedProcess(command, status, printed, errors.read())


def _start(command: list[str], prctl: Callable[..., object]) -> subprocess.Popen[bytes]:
    guard = os.getpid()

    def end_with_the_guard() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it ended before the line above, whose signal will never come
            os.kill(os.getpid(), signal.SIGKILL)

    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_the_guard
    )


def _end_all(group: int, grace: float) -> None:
    """Ask the group to end; after `grace` seconds kill what still runs, and whatever was left behind."""
    deadline = time.monotonic() + grace
    running = _signal_group(group, signal.SIGTERM)
    while running and time.monotonic() < deadline:
        time.sleep(0.05)
        _bury(group)  # else the dead keep the group alive
        running = _signal_group(group, 0)
    # until there is no child at all: what ends hands its children over to this process before it can be buried
    while _signal_group(group, signal.SIGKILL) or adopted(group):
        for orphan in adopted(group):
            orphan.kill()
        _bury(group)
        time.sleep(0.01)


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _bury(own: int) -> None:
    """Wait for the adopted processes that have ended, and for no other."""
    for orphan in adopted(own):
        os.waitpid(orphan.pid, os.WNOHANG)


def adopted(own: int) -> list[psutil.Process]:
    """The children of this process, running or not buried, except `own`, which is waited for elsewhere."""
    return [child for child in psutil.Process().children() if child.pid != own]


if __name__ == "__main__":
    sys.exit(main(None if sys.argv[1] == "-" else float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
