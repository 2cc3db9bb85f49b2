"""What a training says when it cannot go on: where, why, and what to change."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import torch

from genpipe.errors import BadInput
from genpipe.params.training import Training
from genpipe.recipe import Phase, Update

NOTHING: Mapping[str, float] = MappingProxyType({})


class Diverged(BadInput):
    """A loss or a gradient is not a finite number."""


class OutOfMemory(BadInput):
    """The memory of one process did not suffice."""


def diverged(where: str, run: str, scalars: Mapping[str, float] = NOTHING) -> Diverged:
    """The error of an update, or a weight, that is not finite; the scalars of the update tell which."""
    told = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
    return Diverged(
        f"{where} is not finite{': ' + told if told else ''}; lower its learning rate, or clip its gradients "
        f"(gradients: [{{do: clip_norm, bound: 1}}]); the last good checkpoint is the newest in .genpipe/runs/{run}"
    )


def refuse_ambiguous(phases: Iterable[Phase]) -> None:
    """Raise where phases have shares that are none, or two updates have one name."""
    updates: dict[str, Update] = {}
    for phase in phases:
        if not phase.share >= 0:
            raise BadInput(f"phase {phase.name!r}: wanted a share of 0 or more, found {phase.share}")
        for update in phase.updates:
            if update.every < 1:
                raise BadInput(
                    f"update {update.name!r}: wanted a turn every 1 or more steps, found {update.every}"
                )
            if updates.setdefault(update.name, update) != update:
                raise BadInput(f"two updates are called {update.name!r}; rename one")


@contextlib.contextmanager
def memory_named(where: str, params: Training) -> Iterator[None]:
    """Where memory does not suffice for the block, say what to lower."""
    try:
        yield
    except (
        RuntimeError
    ) as error:  # torch.OutOfMemoryError is one; the CPU's allocator has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        rows = params.batch_size // params.logical_workers
        raise OutOfMemory(
            f"{where}: out of memory on a slice of {rows} examples; lower batch_size ({params.batch_size}), or raise "
            f"logical_workers ({params.logical_workers}) for smaller slices; both make other weights"
        ) from None
