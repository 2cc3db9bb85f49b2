"""What a training says when it cannot go on: where, why, and what to change."""

import contextlib
from collections.abc import Iterator

import torch

from genpipe.errors import BadInput
from genpipe.params.training import Training


class Diverged(BadInput):
    """A loss or a gradient is not a finite number."""


def diverged(where: str, loss: float, run: str, checkpoint: int) -> Diverged:
    """The error of an update whose loss or gradient is not finite; `checkpoint` is the step of the last one, 0 for none."""
    last = f"step {checkpoint} in {run}" if checkpoint else "none yet"
    return Diverged(
        f"{where} is not finite: loss {loss}; lower its learning rate, or clip its gradients "
        f"(gradients: [{{do: clip_norm, bound: 1}}]); the last good checkpoint: {last}"
    )


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
        raise BadInput(
            f"{where}: out of memory on a slice of {rows} examples; lower batch_size ({params.batch_size}), or raise "
            f"logical_workers ({params.logical_workers}) for smaller slices; both make other weights"
        ) from None
