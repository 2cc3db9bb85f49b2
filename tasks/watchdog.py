"""DVC waits for ever for a lock that a stranger holds or left behind; the watchdog says who, and ends the wait."""

import contextlib
import fcntl
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from genpipe.errors import GenpipeError
from genpipe.lease import open_own
from genpipe.upkeep.holders import is_running
from tasks.warm import WarmGuard

PATIENCE = 120.0  # seconds of silence
BLOCKER = re.compile(r"\s*\(PID (?P<pid>\d+)\): (?P<command>.*)")


class Watchdog:
    """Watches one stage: `heard()` at each line; `verdict` is set when its DVC waits in vain."""

    def __init__(self, root: Path, guard: subprocess.Popen[str] | WarmGuard) -> None:
        self._lock = root / ".dvc" / "tmp" / "lock"
        self._guard = guard
        self._heard_at = time.monotonic()
        self._over = threading.Event()
        self.verdict: str | None = None

    def heard(self) -> None:
        """The stage gave a sign of life."""
        self._heard_at = time.monotonic()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while this is entered."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        looks = 0  # one could fall between the moment in which a DVC of ours locks the file and that of its number there
        while not self._over.wait(PATIENCE / 10):
            is_silent = time.monotonic() - self._heard_at >= PATIENCE
            looks = looks + 1 if is_silent and self._waits_for_a_stranger() else 0
            if looks < 2:
                continue
            self.verdict = (
                f"DVC waited {PATIENCE:g} s for {self._lock.parent.name}/{self._lock.name}, held by "
                f"{_describe(_holder(self._lock))}; end that process, or see `genpipe unlock`"
            )
            self._guard.terminate()
            return

    def _waits_for_a_stranger(self) -> bool:
        """Whether DVC has started no command, and nobody of this flow holds the lock that is held."""
        try:
            dvc = psutil.Process(self._guard.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return False
        return len(dvc) == 1 and _is_held(self._lock) and not _is_of_this_flow(_holder(self._lock))


def blockers(lines: list[str]) -> str:
    """Who holds the paths that DVC calls busy, as its message tells; a number that another process has now is dead."""
    found = [match for line in lines if (match := BLOCKER.fullmatch(line))]
    return ", ".join(dict.fromkeys(_blocker(int(match["pid"]), match["command"]) for match in found))


def _blocker(pid: int, command: str) -> str:
    dead = "" if is_running(pid, command) else ", which is dead: `genpipe unlock` removes its lock"
    return f"process {pid} ({command}){dead}"


def _is_held(lock: Path) -> bool:
    try:
        with open_own(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # closing it gives it back
    except BlockingIOError:
        return True
    except (OSError, GenpipeError):
        return False
    return False


def _holder(lock: Path) -> int | None:
    """The process that the lock names: DVC writes its number there."""
    with contextlib.suppress(OSError, ValueError):
        return int(lock.read_text(encoding="utf-8").strip())
    return None


def _is_of_this_flow(pid: int | None) -> bool:
    with contextlib.suppress(psutil.Error):
        return pid is not None and psutil.Process() in psutil.Process(pid).parents()
    return False


def _describe(pid: int | None) -> str:
    with contextlib.suppress(psutil.Error):
        if pid is not None:
            return f"process {pid} ({' '.join(psutil.Process(pid).cmdline())})"
    return (
        "a process that has ended or is on another machine"
        if pid is None
        else f"process {pid}, which has ended"
    )
