"""What a group of training processes is, wherever its members run: what they do, where they meet, what they say last."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from genpipe.training.job import Job
from genpipe.training.logical import Exchange, Fast, Processes

LOOPBACK = "127.0.0.1"

Work = Callable[[Exchange, torch.device, Job, Any], None]


def meet(file: Path, rank: int, size: int) -> None:
    """Join the group of `size` processes of this machine that meet at a new file; they talk on loopback.

    torch's own meeting point is a server that listens on all interfaces and lets everybody in; so does gloo's connection of
    each pair.
    """
    os.environ["GLOO_SOCKET_IFNAME"] = loopback()
    # not by the URL of the file: torch reads no name with a space or a letter beyond ASCII in one
    store = dist.FileStore(str(file), size)
    store.set_timeout(dist.default_pg_timeout)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)


def loopback() -> str:
    """The name of the interface that nobody outside this machine reaches: lo, or lo0."""
    known = psutil.net_if_addrs()
    return next(name for name in known if any(address.address == LOOPBACK for address in known[name]))


def exchange_of(job: Job) -> Exchange:
    """How the members of the current process group exchange what they have."""
    return Fast() if job.params.exchange == "fast" else Processes()


def last_words(error: Exception) -> str | None:
    """What a process says before it dies of an error; None where it only lost another one, which died before."""
    if isinstance(error, dist.DistError) or "gloo" in str(error):
        return None
    return f"{type(error).__name__}: {error}".splitlines()[0]
