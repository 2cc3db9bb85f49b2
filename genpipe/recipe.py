"""The contract between models, training and evaluation.

A recipe says what is minimised over which modules; a solver says how; the trainer only plays turns.
What a trained recipe can do is in genpipe/capabilities.py.
"""

import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from genpipe.nn import portable

# Tensors of batch_size rows, cut into slices, and 0-dimensional ones, which go whole to every slice.
Batch = Mapping[str, Tensor]


class Loss(NamedTuple):
    """What an update minimises: a scalar, the mean over the units of a slice, and scalars worth logging.

    Units are what the mean is taken over: examples, or target tokens. The trainer weighs slices by their number of units.
    """

    value: Tensor
    metrics: Mapping[str, Tensor] = {}  # means over the same units
    logits: Tensor | None = None  # [..., classes], what R-drop compares
    weight: Tensor | None = None  # number of units, 0-dimensional, 0 or more; None: slices weigh alike


def mean_over(values: Tensor, keep: Tensor, **metrics: Tensor) -> Loss:
    """The mean of `values` where `keep` is true, weighed by the number of these; 0 with weight 0 where there are none.

    `values`, `keep` and each of `metrics` have one shape; `keep` is boolean, or numbers of units. What is not kept may be
    anything, also infinite.
    """
    weight = keep.sum().double()
    divisor = torch.where(weight > 0, weight, 1)

    def mean(x: Tensor) -> Tensor:
        kept = torch.where(keep != 0, x, torch.zeros_like(x)) * keep
        return kept.sum() / divisor.to(kept.dtype)

    return Loss(mean(values), {name: mean(x.detach()) for name, x in metrics.items()}, weight=weight)


@dataclass(frozen=True)
class Update:
    """One optimiser step: minimise `loss` over the parameters of `modules`, and nothing else.

    Randomness in `loss` comes from torch's global generator, which the trainer seeds for each slice of a batch.
    """

    name: str  # names its solver, its metrics, its errors
    loss: Callable[[Batch], Loss]
    modules: tuple[nn.Module, ...]
    every: int = 1  # n_critic = 5 is `every=5` on the generator
    noise: str | None = None  # whose random stream the loss draws from; None: that of its own name
    # once after each optimiser step, on every process, without a batch and without randomness
    after: Callable[[], None] | None = field(default=None)
    # of the means of the loss's metrics in a step, the same on every process: why the training must stop, in words, or None
    watch: Callable[[Mapping[str, float]], str | None] | None = field(default=None)


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which the same updates repeat."""

    name: str
    updates: tuple[Update, ...]
    share: float = 1.0  # part of the step budget
    # once, before the first step; its batches have no end
    prepare: Callable[[Iterable[Batch]], None] | None = field(default=None)


class Recipe(nn.Module, abc.ABC):
    """A model with everything that training it takes.

    Its buffers change in place. Those named in `sliced` are cut by rows among the logical workers, as a batch is: a loss
    finds the rows of its slice under the buffer's name in its batch, and writes what is to stay there into them.
    """

    sliced: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        """A recipe computes what params.yaml's `numerics` says, from its first weight on."""
        super().__init__()
        portable.install()

    @abc.abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """All that the trainer asks for."""
