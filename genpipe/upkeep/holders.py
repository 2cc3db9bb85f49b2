"""Who holds the locks of DVC and the leases of genpipe: alive or not, and letting go of what the dead left.

A lock file says little: its holder is whom the kernel names. The table of paths (.dvc/tmp/rwlock) knows a number and a
command; since numbers are given anew, a process of that number is the holder only if its command is the same.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from genpipe.errors import BadState, Busy
from genpipe.files import new_file
from genpipe.lease import open_own

TABLE = Path(".dvc/tmp/rwlock")  # below the project, as the next two
GUARD = Path(".dvc/tmp/rwlock.lock")  # DVC holds it while it edits the table
REPOSITORY = Path(".dvc/tmp/lock")
NAMELESS = "core.hardlink_lock is on; where no DVC runs, delete the file"
PATIENCE = 5.0  # seconds: DVC edits its table in milliseconds


@dataclass(frozen=True)
class Holder:
    """Who holds something: `what` is it, `pid` and `command` of the process, and whether that is still there."""

    what: str
    pid: int | None
    command: str
    is_alive: bool

    def describe(self) -> str:
        """One line about it."""
        if self.pid is None:
            return f"{self.what}: held by a process that cannot be identified ({self.command})"
        if self.is_alive:
            return f"{self.what}: held by process {self.pid} ({self.command})"
        return f"{self.what}: left by process {self.pid} ({self.command}), which has ended"


def holders(root: Path) -> list[Holder]:
    """Everything that is held or was left held in a project; leases first, then the lock and the table of DVC."""
    return [*_locked(root), *_table_holders(root)]


def held_leases(root: Path) -> set[str]:
    """The names of the leases that somebody holds now."""
    lockers = _lockers()
    found = set()
    for path in _leases(root):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino in lockers:
                found.add(path.name)
    return found


def release(root: Path) -> list[Holder]:
    """Let go of what dead processes left; what was let go of. A living holder keeps what it has."""
    if all(holder.is_alive for holder in holders(root)):
        return []
    if not (root / GUARD).exists() or _is_hard_link(root / GUARD):
        raise BadState(f"{root / TABLE}: {NAMELESS}")  # DVC would not see our lock on its table
    with _guarded(root / GUARD):
        dead = [holder for holder in _table_holders(root) if not holder.is_alive]
        with new_file(root / TABLE) as partial:
            partial.write_text(json.dumps(_living(root)), encoding="utf-8")
    return dead


def is_running(pid: int, command: str) -> bool:
    """Whether the process `pid` is there and is the one that was started as `command` (the words of its sys.argv)."""
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return True  # another user's, and hidden from us, so it counts as alive
    except psutil.NoSuchProcess:
        return False
    return not is_zombie and _is_same(words, command)


def _is_same(words: list[str], command: str) -> bool:
    """Whether a process of these words has this sys.argv, whose program may be named otherwise (python -m dvc)."""
    program, _, rest = command.partition(" ")
    if rest and not " ".join(words).endswith(f" {rest}"):
        return False
    path = Path(program)
    name = path.parent.name if path.name == "__main__.py" else path.stem
    return any(Path(word).stem == name or word.rpartition(".")[2] == name for word in words)


def _locked(root: Path) -> Iterator[Holder]:
    lockers = _lockers()
    for path in (*_leases(root), root / REPOSITORY, root / GUARD):
        with contextlib.suppress(FileNotFoundError):
            pid = lockers.get(path.stat().st_ino)
            if pid is not None:
                yield Holder(str(path.relative_to(root)), pid, command_of(pid), is_alive=True)
            elif _is_hard_link(path):
                yield Holder(str(path.relative_to(root)), None, NAMELESS, is_alive=True)


def _is_hard_link(path: Path) -> bool:
    """Whether a lock is held by being there (core.hardlink_lock); it then names a file, and no process."""
    return path.parent == path.parents[1] / "tmp" and path.read_text(encoding="utf-8").startswith("/")


def _leases(root: Path) -> list[Path]:
    return sorted((root / ".genpipe" / "leases").glob("*"))


def _lockers() -> dict[int, int]:
    """Who has locked which file: inode to process. Asking the kernel disturbs nobody; trying the lock would."""
    found = {}
    with contextlib.suppress(FileNotFoundError), open("/proc/locks", encoding="ascii") as table:
        for (
            line
        ) in table:  # 1: FLOCK ADVISORY WRITE 4242 08:01:131 0 EOF; with -> before a process that waits
            fields = line.split()
            if fields[1] != "->":
                found[int(fields[5].rsplit(":", 1)[1])] = int(fields[4])
    return found


def command_of(pid: int) -> str:
    """The command of a process; a few words where it has ended or is hidden."""
    try:
        return " ".join(psutil.Process(pid).cmdline()) or "no command"
    except psutil.Error:
        return "ended; a process that it started has the lock now"


def _table(root: Path) -> dict[str, Any]:
    path, deadline = root / TABLE, time.monotonic() + PATIENCE
    while True:
        try:
            return _read_table(path)
        except BadState:  # DVC writes it in place, and is seen in the middle of that
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _read_table(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if text else {}
        if all(isinstance(who["pid"], int) and isinstance(who["cmd"], str) for _, _, who in _entries(table)):
            return table
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise BadState(f"{path}: not DVC's table of busy paths; where no DVC runs, delete it")


def _entries(table: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each entry of the table: read or write, the path, and who."""
    for mode in ("write", "read"):
        for path, who in table.get(mode, {}).items():
            for entry in who if isinstance(who, list) else [who]:
                if entry:
                    yield mode, path, entry


def _table_holders(root: Path) -> list[Holder]:
    return [
        Holder(f"{mode} {_below(root, path)}", entry["pid"], entry["cmd"], is_running(entry["pid"], entry["cmd"]))
        for mode, path, entry in _entries(_table(root))
    ]  # fmt: skip


def _below(root: Path, path: str) -> str:
    return str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path


def _living(root: Path) -> dict[str, Any]:
    """The table without the entries of dead processes."""
    kept: dict[str, Any] = {"write": {}, "read": {}}
    for mode, path, entry in _entries(_table(root)):
        if is_running(entry["pid"], entry["cmd"]):
            if mode == "write":
                kept[mode][path] = entry
            else:
                kept[mode].setdefault(path, []).append(entry)
    return kept


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Hold the lock that DVC holds while it edits its table."""
    deadline = time.monotonic() + PATIENCE
    with open_own(path) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(f"{path}: DVC is editing its table; try again") from None
                time.sleep(0.05)
        yield
