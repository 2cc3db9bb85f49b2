"""Run a command as a group of processes that ends with the one that asked for it, however that one ends.

Killing `dvc` leaves the command of its stage running, and a second copy would then write the same outputs. So a task
starts this guard, which starts the command in a session of its own and ends that whole group when
- its standard input closes: the task closed it, or the task's process is gone, even by SIGKILL;
- it is told to end (SIGTERM), or the time limit is over.

    python guard.py TIMEOUT_SECONDS|- COMMAND …
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 20.0  # seconds between SIGTERM and SIGKILL
ENDED, TIMED_OUT = 143, 124  # exit statuses, as a shell and timeout(1) give them


def main(timeout: float | None, command: list[str]) -> int:
    """Run `command`; its exit status, or ENDED or TIMED_OUT."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    finished = threading.Thread(target=lambda: (child.wait(), over.set()), daemon=True)
    finished.start()
    threading.Thread(target=lambda: (os.read(0, 1), over.set()), daemon=True).start()
    in_time = over.wait(timeout)
    status = child.returncode
    end_group(child.pid, 0.0 if status is not None else GRACE)
    finished.join()
    if not in_time:
        print(f"timed out after {timeout:g} seconds", file=sys.stderr, flush=True)
        return TIMED_OUT
    return ENDED if status is None else status % 256  # a signal is negative: -9 becomes 247


def end_group(group: int, grace: float) -> None:
    """Ask every process of the group to end, and make those end that still run after `grace` seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(None if sys.argv[1] == "-" else float(sys.argv[1]), sys.argv[2:]))
