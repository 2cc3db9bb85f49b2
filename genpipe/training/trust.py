"""Whether an operation has the same bits over the rows of several slices as slice by slice: tried on random numbers.

A product of matrices may add in another order when it has more rows. On numbers of a training that shows at some steps and
not at others, on thousands of random ones it shows at once; so each operation is tried once with its shapes and strides.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genpipe.training.stacked import Leaf, Rule, Stacked, each, leaf_of

NUMBERS = 8192  # results that are compared, at least
MOST = 64  # draws


class Trust:
    """What was found of each operation of a training."""

    def __init__(self) -> None:
        self._found: dict[Hashable, bool] = {}
        self.trace = 0  # of the last pass: which functions it called

    def __call__(
        self, rule: Rule, num_slices: int, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> bool:
        """Whether the rule gives the bits of slice by slice, results and gradients."""
        key = (func, num_slices, _signature(args), _signature(kwargs))
        if key not in self._found:
            self._found[key] = _tried(rule, num_slices, func, args, kwargs)
        return self._found[key]


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same bits: zeros of other signs differ, a NaN equals itself."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(*(x.detach().contiguous().flatten().view(torch.uint8) for x in (a, b)))


def _signature(x: Any) -> Hashable:
    if isinstance(x, Stacked):
        held = (x.parts[0],) if x.whole is None else (x.whole,)
        return (type(x), *((tuple(part.shape), part.stride(), part.dtype) for part in held), x.whole is None)
    if isinstance(x, Tensor):
        return (tuple(x.shape), x.stride(), x.dtype)
    if isinstance(x, (list, tuple)):
        return tuple(map(_signature, x))
    return tuple((name, _signature(value)) for name, value in x.items()) if isinstance(x, Mapping) else x


@torch.enable_grad()
def _tried(rule: Rule, num_slices: int, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    generator = torch.Generator().manual_seed(0)
    compared = 0
    for _ in range(MOST):
        inputs: list[Tensor] = []
        twins = [_twin(x, num_slices, generator, inputs) for x in args]
        together = rule.run(num_slices, *twins, **kwargs)
        if together is NotImplemented:
            return False
        apart = each(num_slices, func, twins, kwargs)
        if not isinstance(together, Stacked) or not isinstance(apart, Stacked):
            return False
        if not all(same(*pair) for pair in zip(together.parts, apart.parts, strict=True)):
            return False
        slopes = [torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in apart.parts]
        if apart.parts[0].requires_grad:
            found = [torch.autograd.grad(list(x.parts), inputs, slopes) for x in (together, apart)]
            if not all(same(*pair) for pair in zip(*found, strict=True)):
                return False
        compared += apart.numel() * num_slices
        if compared >= NUMBERS:
            return True
    return True


def _twin(x: Any, num_slices: int, generator: torch.Generator, inputs: list[Tensor]) -> Any:
    """An argument of the same shapes and strides with random numbers; by those in `inputs` there is a gradient."""
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        return x
    if isinstance(x, Leaf):
        leaf = leaf_of(_drawn(x.parts[0], generator), num_slices)
        inputs.extend(leaf.parts)
        return leaf
    if isinstance(x, Stacked):
        held = [_drawn(part, generator) for part in (x.parts if x.whole is None else [x.whole])]
        inputs.extend(part.requires_grad_() for part in held)
        return Stacked.of_parts(held) if x.whole is None else Stacked.of_whole(held[0])
    return _drawn(x, generator)


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    made = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
    return made.copy_(torch.randn(like.shape, generator=generator, dtype=like.dtype))
