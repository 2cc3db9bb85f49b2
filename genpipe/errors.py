"""What genpipe says when the input or the machine, not the code, is at fault."""

import errno

# by a person, without our code
MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class BadInput(Exception):
    """Something a person can mend: one line that says what was wanted, what came, where, and the remedy.

    The command line prints the line and ends with status 2; nothing half-written is left behind.
    """


class ClusterLost(Exception):
    """What the work ran on is gone: one line. Nobody need mend anything; the same command goes on where it stopped.

    The command line prints the line and ends with status 1, so that a flow tries again.
    """


def one_line(error: Exception) -> str | None:
    """What a person can mend, told in a line: bad input, a full disk; None where it is a defect."""
    if isinstance(error, BadInput):
        return str(error)
    return disk_trouble(error) if isinstance(error, OSError) else None


def disk_trouble(error: OSError) -> str | None:
    """One line about a full disk or missing rights; None where the error is another one."""
    if error.errno not in MENDABLE:
        return None
    return (
        f"{error.filename or 'writing'}: {error.strerror}; make room or change the rights, and run it again"
    )
