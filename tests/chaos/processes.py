"""Every process that a run starts, however it was started and whatever became of its parent."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

MARK = "GENPIPE_CHAOS"  # the environment variable that all of them inherit


class Family:
    """The processes that bear a mark, with their children and sessions: a title may overwrite an environment."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._members: set[psutil.Process] = set()
        self._strangers: set[psutil.Process] = set()
        self._sessions: set[int] = set()
        self._lock = threading.Lock()

    def start(
        self, command: Sequence[str], root: Path, environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own; `log` gets what it prints."""
        with log.open("ab") as file, self._lock:  # nobody may judge it between its fork and its mark
            process = subprocess.Popen(
                command,
                cwd=root,
                env={**environment, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            self._members.add(psutil.Process(process.pid))
            self._sessions.add(process.pid)
        return process

    def living(self) -> list[psutil.Process]:
        """Those that run now."""
        with self._lock:
            now = list(psutil.process_iter())
            for process in now:
                if process not in self._strangers and process not in self._members:
                    self._judge(process)
            self._strangers &= set(now)
            return [process for process in now if process in self._members and _runs(process)]

    def _judge(self, process: psutil.Process) -> None:
        try:
            session = os.getsid(process.pid)
            is_ours = (
                session in self._sessions
                or process.parent() in self._members
                or process.environ().get(MARK) == self._mark
            )
        except (psutil.Error, OSError):
            return  # it has ended
        (self._members if is_ours else self._strangers).add(process)
        if is_ours:
            self._sessions.add(session)

    def wait_until_gone(
        self, seconds: float, may_stay: Callable[[psutil.Process], bool] = lambda _: False
    ) -> list[psutil.Process]:
        """Those that still run after so long, except the ones that may."""
        deadline = time.monotonic() + seconds
        while left := [process for process in self.living() if not may_stay(process)]:
            if time.monotonic() > deadline:
                return left
            time.sleep(0.2)
        return []

    def kill(self) -> None:
        """End all of them."""
        while living := self.living():
            for process in living:
                kill(process)
            time.sleep(0.1)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Look five times a second, so that no child is missed whose parent dies soon; all are ended afterwards."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                self.living()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            self.kill()


def ended(process: subprocess.Popen[bytes], seconds: float, what: str) -> list[str]:
    """Wait for a process, and end it where it does not end by itself in time: the complaints."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return [f"{what} (process {process.pid}) did not end within {seconds:g} s"]
    return []


def succeeded(process: subprocess.Popen[bytes], seconds: float, what: str) -> list[str]:
    """The same; a status other than 0 is a complaint, too."""
    complaints = ended(process, seconds, what)
    return complaints or ([f"{what} ended with {process.returncode}"] if process.returncode else [])


def kill(process: psutil.Process) -> None:
    """SIGKILL, unless it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def words_of(process: psutil.Process) -> list[str]:
    """The command line; empty when the process is gone."""
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
