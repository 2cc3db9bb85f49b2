"""The flow's side of tasks/warm_process.py: what it starts looks like a guard that this process has started."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from genpipe.dvc_command import environment as dvc_environment
from genpipe.graph import Stage

PROCESS = Path(__file__).with_name("warm_process.py")
LOG = Path(".genpipe", "logs", "warm.process.log")  # below the project; no stage may have a name with dots
SWITCH = "GENPIPE_WARM"  # off: each stage is a command, as a debugger wants it
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
WORTH_IT = 3  # stages: their imports cost more than those of the warm process
GROUPS = ("train", "sample", "evaluate")  # the stages, and commands of genpipe, that import torch
LOST = -signal.SIGKILL  # exit status of a guard that could not report one


class WarmGuard:
    """A guard that the warm process has forked; used as `subprocess.Popen` is."""

    def __init__(self, stdin: IO[str], stdout: IO[str], report: IO[str]) -> None:
        self.stdin, self.stdout, self._report = stdin, stdout, report
        self.pid = int(report.readline() or 0)
        self._lock = threading.Lock()
        self._status: int | None = None

    def wait(self) -> int:
        """Its exit status, when it and all that it forked have ended."""
        words = self._report.read().split() if self._status is None else []
        with self._lock:
            if self._status is None:
                self._status = int(words[0]) if words else LOST
        return self._status

    def terminate(self) -> None:
        """Ask it to end its group."""
        with self._lock, suppress(ProcessLookupError):
            if self._status is None and self.pid:
                os.kill(self.pid, signal.SIGTERM)


class Warm:
    """The warm process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = root / LOG
        log.parent.mkdir(parents=True, exist_ok=True)
        # on a terminal, DVC would choose colours when it is imported, and a flow cannot read its lines then
        with theirs, log.open("w", encoding="utf-8") as words:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PROCESS), str(theirs.fileno())],
                cwd=root,
                env={**dvc_environment(root), **UNBUFFERED},
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(
        self, words: list[str], timeout: float | None, environment: Mapping[str, str]
    ) -> WarmGuard | None:
        """A guarded `dvc words…` in the project; None where the warm process has ended."""
        request = {
            "root": str(self.root),
            "words": words,
            "timeout": timeout,
            "environment": dict(environment),
        }
        (asked, asking), (hearing, output), (reading, report) = os.pipe(), os.pipe(), os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._control, [json.dumps(request).encode()], [asked, output, report])
        except OSError:
            for mine in (asking, hearing, reading):
                os.close(mine)
            return None
        finally:
            for theirs in (asked, output, report):
                os.close(theirs)
        found = WarmGuard(
            os.fdopen(asking, "w"),
            os.fdopen(hearing, encoding="utf-8", errors="replace"),
            os.fdopen(reading),
        )
        if not found.pid:  # it ended before it forked
            for pipe in (found.stdin, found.stdout):
                pipe.close()
            return None
        return found

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """End it; its guards end with it."""
        self._control.close()
        self._process.wait()


@contextmanager
def warm_for(root: Path, stages: Sequence[Stage]) -> Iterator[Warm | None]:
    """A warm process, where enough of these stages import what it has, and the system can hand it pipes."""
    is_off = os.environ.get(SWITCH) == "off" or sys.platform != "linux"
    count = sum(stage.name.partition("@")[0] in GROUPS for stage in stages)
    if count < WORTH_IT or is_off:
        yield None
        return
    warm = Warm(root)
    try:
        yield warm
    finally:
        warm.end()
