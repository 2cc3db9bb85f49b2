"""The part of a step that one logical worker computes: its randomness, its rows, its gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genpipe.errors import BadInput
from genpipe.recipe import Batch
from genpipe.training.logical import Row

LARGE = 1 << 15  # numbers


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's global generators: what torch.manual_seed does, without its tenth of a millisecond for stack traces."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def slice_of(batch: Batch, v: int, num_slices: int, batch_size: int) -> dict[str, Tensor]:
    """The rows of a batch that logical worker `v` computes; 0-dimensional tensors whole."""
    rows = batch_size // num_slices
    return {name: value[v * rows : (v + 1) * rows] if value.dim() else value for name, value in batch.items()}


def refuse_other_rows(batch: Batch, batch_size: int) -> None:
    """Raise where a tensor of a batch cannot be cut into slices."""
    for name, value in batch.items():
        if value.dim() and len(value) != batch_size:
            raise BadInput(
                f"batch: {name!r} has {len(value)} rows and batch_size is {batch_size}; make a row for each example, or a "
                "0-dimensional tensor of what belongs to the whole batch"
            )


def own_memory(gradients: Sequence[Tensor | None]) -> Row:
    """Gradients that can be added to in place: autograd may hand out one tensor twice, or one number as many."""
    seen: set[int] = set()
    own: Row = []
    for gradient in gradients:
        if gradient is None:
            own.append(None)
            continue
        dense = gradient.contiguous()
        if dense.data_ptr() in seen:
            dense = dense.clone()
        seen.add(dense.data_ptr())
        own.append(dense)
    return own


def weighed(means: Row, weight: float) -> Row:
    """Means over a slice times its number of units, in place; zeros where it has none, also of what is no number.

    The factor meets gradients in the type of their parameters: a loss in bfloat16 would round it above 256.
    """
    there = [mean for mean in means if mean is not None]
    if not weight:
        return [torch.zeros_like(mean) for mean in there]
    torch._foreach_mul_(there, weight)
    return means


def averaged(sums: list[Tensor], weight: float, num_gradients: int) -> float:
    """Divide sums by the weight, in place; the norms of the first of them, added up: a finite number where all are."""
    norms: list[Tensor] = []
    groups = [[x] for x in sums[:num_gradients] if x.numel() >= LARGE]
    small = [x for x in sums[:num_gradients] if x.numel() < LARGE]
    for group in [*groups, small]:  # a large one at a time: its norm is taken while it is in the cache
        if group and weight != 1:
            torch._foreach_div_(group, weight)
        norms.extend(torch._foreach_norm(group) if group else ())
    if weight != 1:
        torch._foreach_div_(sums[num_gradients:], weight)
    return torch.stack(norms).sum().item()
