"""Whether the slices of an update are computed together: where that was seen to give the bits of one after the other.

Both ways end on the same bits, so processes need not agree on one, the faster one may be taken, and no artifact tells which
it was.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from genpipe.recipe import Batch, Loss
from genpipe.training.logical import Node, Row, added, owned, subtrees, tree_sum
from genpipe.training.rules import RULES
from genpipe.training.slices import own_memory
from genpipe.training.stacked import Refused, Stacked, Together, apart, of_slice
from genpipe.training.trust import Trust, same

CHECKS = 3  # batches of one kind that are computed both ways
KINDS = 128  # shapes of batches, or ways through the loss, that are worth it
UNDECIDED = (
    8  # batches after which gradients that are all zeros, which show nothing, are waited for no longer
)


class Held(NamedTuple):
    """The slices that a process holds."""

    slices: Node
    num_slices: int  # of the whole batch
    num_rows: int  # of a slice

    @staticmethod
    def by(rank: int, size: int, num_slices: int, batch_size: int) -> "Held":
        """Those of one of `size` processes."""
        return Held(owned(rank, size, num_slices), num_slices, batch_size // num_slices)

    def nodes(self) -> list[Node]:
        """The subtrees that this process adds up itself."""
        return subtrees(self.slices, (0, self.num_slices))


class Ways:
    """How each update of a training computes the slices that this process holds."""

    def __init__(self, held: Held, never: str = "") -> None:
        """`never` says why nothing is computed together, if so."""
        self.refused: dict[str, str] = {}  # reasons by update: what the loss does
        self.trust = Trust()
        self.held = held
        self.never = never or ("" if held.slices[1] - held.slices[0] > 1 else "there is one slice")
        self.checked: Counter[tuple[object, ...]] = (
            Counter()
        )  # by update, shapes, and functions that were called
        self.is_timed = True  # whether the faster way is taken, where both have the same bits
        self._undecided: Counter[object] = Counter()
        self._seconds: dict[tuple[object, bool], float] = {}  # the least of each way, of this thread
        self._timed: Counter[object] = Counter()

    def rows(
        self,
        update: str,
        batch: Batch,
        alone: Callable[[int], Row],
        together: Callable[[Batch], list[Row]],
        num_gradients: int,
    ) -> Callable[[int], Row]:
        """What gives the row of each slice that is held, once; `num_gradients` tensors of it are gradients."""
        if self.never or update in self.refused:
            return alone
        shapes = (update, *((name, value.shape) for name, value in batch.items()))
        if self._is_slower(shapes):
            return alone
        copies = {name: value.clone() for name, value in batch.items()}
        before = [value._version for value in copies.values()]
        begun = time.thread_time()
        try:
            rows = together(copies)
            if [value._version for value in copies.values()] != before:
                raise Refused("writes to its batch")
            key = self._kind(shapes)
        except Exception as error:  # noqa: BLE001 - an error of the loss comes again, in its own words, alone
            self._refuse(update, str(error) if isinstance(error, Refused) else f"stops ({_line(error)})")
            return alone
        if self.checked[key] < CHECKS:
            self._note_time(shapes, True, begun)
            begun = time.thread_time()
            right = [alone(v) for v in range(*self.held.slices)]
            self._note_time(shapes, False, begun)
            rows = self._compared(update, key, rows, right)
            self._note_zeros(update, key, rows, num_gradients)
            self._timed[shapes] = max(self._timed[shapes], self.checked[key])
        return dict(zip(range(*self.held.slices), rows, strict=True)).pop

    def _kind(self, shapes: tuple[object, ...]) -> tuple[object, ...]:
        """What a check of the last pass holds for: what a loss does only later is checked then."""
        key = (*shapes, self.trust.trace)
        if key not in self.checked and sum(other[0] == shapes[0] for other in self.checked) >= KINDS:
            raise Refused("has batches of too many shapes, or too many ways")
        return key

    def _is_slower(self, shapes: object) -> bool:
        """Whether slices together were seen to take longer."""
        is_known = self.is_timed and self._timed[shapes] >= CHECKS
        return is_known and self._seconds[shapes, False] < self._seconds[shapes, True]

    def _compared(self, update: str, key: tuple[object, ...], rows: list[Row], right: list[Row]) -> list[Row]:
        """The rows of one slice after the other, and whether they have the same bits, also added up."""
        first = self.held.slices[0]
        summed = {i for row in rows for i, x in enumerate(row) if x is None}
        pairs = [
            (i, a, b)
            for mine, theirs in zip(rows, right, strict=True)
            for i, (a, b) in enumerate(zip(mine, theirs, strict=True))
        ]
        if not all(i in summed or (a is not None and b is not None and same(a, b)) for i, a, b in pairs):
            self._refuse(update, "has other bits on more rows")
        for node in self.held.nodes():
            sums = [
                tree_sum(node, lambda n, of=of: of[n[0] - first] if n[1] - n[0] == 1 else None, added)
                for of in (rows, right)
            ]
            if not all(a is not None and b is not None and same(a, b) for a, b in zip(*sums, strict=True)):
                self._refuse(update, "has other bits on more rows")
        self.checked[key] += 1
        return right

    def _note_time(self, key: object, is_together: bool, begun: float) -> None:
        seconds = time.thread_time() - begun
        self._seconds[key, is_together] = min(seconds, self._seconds.get((key, is_together), seconds))

    def _note_zeros(self, update: str, key: tuple[object, ...], right: list[Row], num_gradients: int) -> None:
        """A check does not count where a gradient is all zeros, as below a layer that starts at zero."""
        columns = list(zip(*right, strict=True))[:num_gradients]
        if all(any(g is not None and bool(g.any()) for g in column) for column in columns):
            return
        self.checked[key] -= 1
        self._undecided[key] += 1
        if self._undecided[key] >= UNDECIDED and update not in self.refused:
            self._refuse(update, "has gradients that are all zeros")

    def _refuse(self, update: str, reason: str) -> None:
        self.refused.setdefault(update, reason)


def differentiated(
    loss: Callable[[Batch], Loss],
    batch: Batch,
    held: Held,
    parameters: Sequence[Tensor],
    everything: Sequence[Tensor],
    seeds: Sequence[int],
    trust: Trust,
) -> list[tuple[Loss, Row]]:
    """The loss of each slice that is held, and its gradients by the parameters.

    None where the gradient of an earlier slice is the sum over a subtree that this slice belongs to.
    """
    trained = {id(p) for p in parameters}
    mode = Together(parameters, [p for p in everything if id(p) not in trained], seeds, RULES, trust)
    with mode:
        made = loss(stacked(batch, held))
    mode.refuse_other_draws()
    trust.trace = mode.trace
    num_slices, first = len(seeds), held.slices[0]
    fields = apart(tuple(made))
    losses = [Loss(*of_slice(fields, v)) for v in range(num_slices)]
    if all(one.weight is None for one in losses):  # a weight meets the gradients of its slice
        mode.nodes += [(a - first, b - first) for a, b in held.nodes()]
    leaves = list(chain.from_iterable(leaf.parts for leaf in mode.leaves))
    found = torch.autograd.grad([one.value for one in losses], leaves, allow_unused=True)
    firsts = {a for a, _ in mode.nodes} or set(range(num_slices))
    if any(g is None for i, g in enumerate(found) if i % num_slices in firsts):
        raise Refused("does not reach all parameters")
    gradients = own_memory(found)  # of all slices: two may have been given one tensor
    return [(one, gradients[v::num_slices]) for v, one in enumerate(losses)]


def stacked(batch: Batch, held: Held) -> Mapping[str, Tensor]:
    """A batch as each of the slices has it; 0-dimensional tensors whole."""
    first, last = held.slices
    span = slice(first * held.num_rows, last * held.num_rows)
    return {
        name: Stacked.of_whole(value[span].unflatten(0, (last - first, held.num_rows)))
        if value.dim()
        else value
        for name, value in batch.items()
    }


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
