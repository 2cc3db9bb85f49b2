"""Chunks of samples on processes of this machine: each chunk has its own random numbers, so all are the same on any number of them."""

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np
import torch

from genpipe import lease
from genpipe.capabilities import Example
from genpipe.errors import WorkFailed

Make = Callable[[int], Example]
_made: dict[str, Make] = {}  # what a process was forked with: a function of a model cannot be sent


def spread(make: Make, numbers: range, processes: int) -> list[Example]:
    """`make` of each number, in order, on processes that are forked from this one; in this one alone where that is all."""
    if processes < 2 or len(numbers) < 2:
        return [make(number) for number in numbers]
    size = min(processes, len(numbers))
    try:
        with ProcessPoolExecutor(size, get_context("fork"), _begin, (make,)) as pool:
            return [_tensors(part) for part in pool.map(_arrays, numbers)]
    except BrokenProcessPool:
        raise WorkFailed(
            "a process that draws samples has ended itself or was killed, as for lack of memory; run it again with fewer "
            "processes (cluster.workers)"
        ) from None


def _begin(make: Make) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lease.die_with_parent()
    torch.set_num_threads(1)
    _made["make"] = make


def _arrays(number: int) -> dict[str, np.ndarray]:
    """Arrays are copied to the parent; tensors would share memory that ends with this process."""
    with torch.no_grad():
        return {name: value.numpy() for name, value in _made["make"](number).items()}


def _tensors(part: dict[str, np.ndarray]) -> Example:
    return {name: torch.from_numpy(value) for name, value in part.items()}
