"""Which stage starts next: plain decisions, without Prefect."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from genpipe.cores import cores
from genpipe.graph import Stage

NOTHING: Mapping[str, float] = MappingProxyType({})


def next_to_start(
    waiting: list[Stage],
    running: Collection[Stage],
    max_parallel: int,
    chains: Mapping[str, float] = NOTHING,
) -> Stage | None:
    """Of the stages that may start, the one of highest priority; of equal ones, the one of the longest of `chains`.

    Of equal ones again it is the first; None when none may start.
    """
    if len(running) >= max_parallel:
        return None
    may_start = startable(waiting, running)
    return max(may_start, key=lambda s: (s.needs.priority, chains.get(s.name, 0.0)), default=None)


def startable(waiting: list[Stage], running: Collection[Stage]) -> list[Stage]:
    """The stages that need none of the unfinished ones and for which there is room."""
    unfinished = {stage.name for stage in [*waiting, *running]}
    return [s for s in waiting if not unfinished & set(s.upstream) and _has_room(s, running)]


def downstream(name: str, waiting: list[Stage]) -> list[Stage]:
    """The stages of `waiting`, given in order, that directly or through others need `name`."""
    lost = {name}
    for stage in waiting:
        if lost & set(stage.upstream):
            lost.add(stage.name)
    return [stage for stage in waiting if stage.name in lost]


def _has_room(stage: Stage, running: Collection[Stage]) -> bool:
    """Whether the processors and GPUs that `meta.genpipe` claims are free.

    A stage alone always has room: a smaller machine makes the same artifacts, only later.
    """
    cpus = sum(s.needs.cpus for s in running) + stage.needs.cpus
    gpus = sum(s.needs.gpus for s in running) + stage.needs.gpus
    return not running or (cpus <= cores() and gpus <= num_gpus())


def num_gpus() -> int:
    """GPUs of this machine that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
