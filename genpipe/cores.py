"""How many cores a process may use."""

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU time, and of how many


def cores() -> int:
    """The cores that this process may use: no more than a container has time for."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text(encoding="utf-8").split()
        return min(found, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        # there is no limit: no file, or the word max
        return found
