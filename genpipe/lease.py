"""A stage holds a lease while it runs, so that two writers of one output are impossible."""

import ctypes
import errno
import fcntl
import json
import os
import signal
import stat
from pathlib import Path
from typing import IO

from genpipe.errors import EXIT_STATUS, BadState, Busy

BUSY = EXIT_STATUS[Busy]


def hold(root: Path, name: str) -> IO[str]:
    """Take the lease `name`, or raise Busy; it is held as long as the returned file is referenced."""
    path = root / ".genpipe" / "leases" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open_own(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise Busy(f"{name} is being run by process {holder}; wait for it, or end it") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def open_own(path: Path) -> IO[str]:
    """Open a file of ours to read it and to write at its end; BadState where a link or something else has its name.

    Whoever can place a link there would otherwise choose which file is written.
    """
    try:
        number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise BadState(
            f"{path}: a file of genpipe belongs there, and it is a link or no file; remove it"
        ) from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise BadState(f"{path}: a file of genpipe belongs there, and it is no file; remove it")
    return os.fdopen(number, "a+", encoding="utf-8")


def die_with_parent() -> None:
    """Ask Linux to send SIGTERM to this process when its parent (dvc) dies: no orphan goes on writing."""
    if hasattr(os, "uname") and os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def remove_broken_rwlock(root: Path) -> None:
    """Remove the list of files in use that a DVC killed in the middle of writing it has left, which no DVC can read."""
    path = root / ".dvc" / "tmp" / "rwlock"
    if not path.exists():
        return
    with open_own(path.with_name("rwlock.lock")) as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            json.loads(path.read_text(encoding="utf-8"))
        except (BlockingIOError, FileNotFoundError):
            return  # somebody writes it now
        except ValueError:
            path.unlink()
