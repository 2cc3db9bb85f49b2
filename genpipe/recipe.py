"""The contract between models, training and evaluation.

A recipe says what is minimised over which modules; a solver says how; the trainer only plays turns.
What a trained recipe can do is in genpipe/capabilities.py.
"""

import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

Batch = Mapping[str, Tensor]


class Loss(NamedTuple):
    """What an update minimises: a scalar, the mean over the examples of a batch, and scalars worth logging."""

    value: Tensor
    metrics: Mapping[str, Tensor] = {}
    logits: Tensor | None = None  # [..., classes], what R-drop compares


@dataclass(frozen=True)
class Update:
    """One optimiser step: minimise `loss` over the parameters of `modules`, and nothing else.

    Randomness in `loss` comes from torch's global generator, which the trainer seeds for each slice of a batch.
    """

    name: str  # names its solver, its metrics, its errors
    loss: Callable[[Batch], Loss]
    modules: tuple[nn.Module, ...]
    every: int = 1  # n_critic = 5 is `every=5` on the generator


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

    @abc.abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """All that the trainer asks for."""
