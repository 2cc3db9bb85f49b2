"""The errors that genpipe reports in one line, as a tree; each kind ends a command with its own exit status.

    GenpipeError          one line: what is wrong, where, and the remedy
    ├── BadInput          what a person gave: arguments, parameters, files, texts                          2
    ├── BadState          the project: not made, not committed, not registered, out of date                2
    ├── WorkFailed        a part of the work failed: a stage, a run, a publication, a judgement            1
    └── Unavailable       the world: Ray, a network, Git, DVC, storage, a full disk; worth another try    69
        └── Busy          another process does this work or holds the lock                                75

Any other exception is a defect: it ends with its traceback and status 1. The command line and the flows share this table.
"""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
INTERRUPTED = 130  # as a shell reports a process that SIGINT ended


class GenpipeError(Exception):
    """One line that says what is wrong, where, and the remedy; nothing half-written is left behind."""

    # Whether every process of a training has raised it, so that none waits for another.
    is_agreed = False


class BadInput(GenpipeError):
    """What a person gave is not valid."""


class BadState(GenpipeError):
    """The project is not in the state that the command needs."""


class WorkFailed(GenpipeError):
    """A part of the work failed."""


class Unavailable(GenpipeError):
    """Something outside the project does not answer or has no room; the same command later goes on where it stopped."""


class ClusterLost(Unavailable):
    """The Ray cluster that the work ran on is gone."""


class Busy(Unavailable):
    """Another process does this work, or holds the lock."""


# 69 and 75 are EX_UNAVAILABLE and EX_TEMPFAIL of sysexits.h.
EXIT_STATUS: dict[type[GenpipeError], int] = {
    BadInput: 2,
    BadState: 2,
    WorkFailed: 1,
    Unavailable: 69,
    Busy: 75,
}
_BY_NAME = {kind.__name__: kind for kind in EXIT_STATUS}


def exit_status(error: BaseException) -> tuple[int, str] | None:
    """The exit status and the line of an error; None where it is a defect."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; run the same command again"
    known = reported(error)
    return (EXIT_STATUS[kind_of(known)], str(known)) if known else None


def reported(error: BaseException) -> GenpipeError | None:
    """The error as one of the tree: itself, or what a full disk, missing rights or a name too long mean; None where it is a defect."""
    if isinstance(error, GenpipeError):
        return error
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.ENAMETOOLONG:
        return BadInput(f"{error.filename!s:.60}…: {error.strerror}; give a shorter name")
    what = f"{error.filename or 'writing'}: {error.strerror}"
    if error.errno in FULL:
        return Unavailable(f"{what}; make room, and run it again")
    # Another try cannot change rights, so this is no Unavailable.
    return BadState(f"{what}; change the rights, and run it again") if error.errno in FORBIDDEN else None


def kind_of(error: GenpipeError) -> type[GenpipeError]:
    """The class of the table that an error belongs to: its own, or the nearest one above."""
    return next(kind for kind in type(error).__mro__ if kind in EXIT_STATUS)


def packed(error: GenpipeError) -> tuple[str, str]:
    """The kind of an error and its line, to send to another process."""
    return kind_of(error).__name__, str(error)


def unpacked(kind: str, line: str) -> GenpipeError:
    """The error that another process has packed."""
    return _BY_NAME[kind](line)
