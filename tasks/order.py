"""Which stage starts next: plain decisions, without Prefect."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from genpipe.cores import cores
from genpipe.graph import Stage

NOTHING: Mapping[str, float] = MappingProxyType({})
NO_CLAIMS: Mapping[str, int] = MappingProxyType({})


def next_to_start(
    waiting: list[Stage],
    running: Collection[Stage],
    max_parallel: int,
    chains: Mapping[str, float] = NOTHING,
    claims: Mapping[str, int] = NO_CLAIMS,
) -> Stage | None:
    """Of the stages that need none of the unfinished ones, the one of highest priority; of equal ones, of the longest chain.

    Of equal ones again it is the first. `claims` are cores that stages take beside those of `meta.genpipe`. None when none
    may start: the best of them waits for room, and no other one takes that meanwhile, or it might wait to the end.
    """
    if len(running) >= max_parallel:
        return None
    ready = startable(waiting, running)
    best = max(ready, key=lambda s: (s.needs.priority, chains.get(s.name, 0.0)), default=None)
    return best if best and _has_room(best, running, claims) else None


def startable(waiting: list[Stage], running: Collection[Stage]) -> list[Stage]:
    """The stages that need none of the unfinished ones."""
    unfinished = {stage.name for stage in [*waiting, *running]}
    return [s for s in waiting if not unfinished & set(s.upstream)]


def hastened(
    chains: Mapping[str, float], waiting: list[Stage], wanted: Collection[Stage]
) -> dict[str, float]:
    """The chains, with those of `wanted` and of all that these need before all others."""
    needed = {stage.name for stage in wanted}
    for stage in reversed(waiting):
        if stage.name in needed:
            needed |= set(stage.upstream)
    ahead = max(chains.values(), default=0.0)
    return {name: length + ahead * (name in needed) for name, length in chains.items()}


def downstream(name: str, waiting: list[Stage]) -> list[Stage]:
    """The stages of `waiting`, given in order, that directly or through others need `name`."""
    lost = {name}
    for stage in waiting:
        if lost & set(stage.upstream):
            lost.add(stage.name)
    return [stage for stage in waiting if stage.name in lost]


def _has_room(stage: Stage, running: Collection[Stage], claims: Mapping[str, int]) -> bool:
    """Whether the processors and GPUs that stages claim are free.

    A stage alone always has room: a smaller machine makes the same artifacts, only later.
    """
    cpus = sum(max(s.needs.cpus, claims.get(s.name, 0)) for s in [*running, stage])
    gpus = sum(s.needs.gpus for s in [*running, stage])
    return not running or (cpus <= cores() and gpus <= num_gpus())


def num_gpus() -> int:
    """GPUs of this machine that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
