"""The buffers of a recipe during a step: every slice starts from the same values, and their changes are averaged."""

import torch
from torch import Tensor

from genpipe.errors import BadInput
from genpipe.recipe import Recipe
from genpipe.training.logical import Exchange, owned

Values = dict[str, Tensor]


class Buffers:
    """Those that all slices share (statistics, singular vectors), and those whose rows belong to one slice each."""

    def __init__(self, recipe: Recipe, num_slices: int) -> None:
        there = dict(recipe.named_buffers())
        self._recipe = recipe
        self._num_slices = num_slices
        self._sliced = {name: there[name] for name in recipe.sliced}
        self._shared = {name: buffer for name, buffer in there.items() if name not in self._sliced}
        self._saved = recipe.state_dict().keys()
        for name, buffer in self._sliced.items():
            if len(buffer) % num_slices:
                raise BadInput(
                    f"{type(recipe).__name__}.{name}: {num_slices} logical workers do not divide its {len(buffer)} rows; "
                    f"take {len(buffer) // num_slices * num_slices or num_slices}"
                )

    def opening(self) -> Values:
        """The shared values as they are now."""
        return {name: buffer.clone() for name, buffer in self._shared.items()}

    def restore(self, opening: Values) -> None:
        """Put the shared values back."""
        for name, buffer in self._shared.items():
            buffer.copy_(opening[name])

    def versions(self) -> list[int]:
        """How often each of the shared values was written to."""
        return [buffer._version for buffer in self._shared.values()]

    def changes(self, opening: Values) -> list[Tensor]:
        """What a slice made of the shared values; changes of integers as floats, so that they have a mean."""
        for name, buffer in [*self._shared.items(), *self._sliced.items()]:
            if self._recipe.get_buffer(name) is not buffer:
                raise self._cannot(name, "is another tensor than at the start; change it in place")
        return [self._change(name, buffer, opening[name]) for name, buffer in self._shared.items()]

    def _change(self, name: str, buffer: Tensor, before: Tensor) -> Tensor:
        same = (buffer == before) | (buffer.isnan() & before.isnan())
        if not same.all():
            if buffer.dtype == torch.bool:
                raise self._cannot(name, "is made of booleans and changes: they have no mean; take numbers")
            if name not in self._saved:
                raise self._cannot(
                    name, "changes and is not persistent: no checkpoint has it; make it persistent"
                )
        wide = torch.promote_types(
            buffer.dtype, torch.float32 if buffer.is_floating_point() else torch.float64
        )
        # a mask may hold infinities, whose difference is no number
        return torch.where(same, 0, buffer.to(wide) - before.to(wide))

    def _cannot(self, name: str, why: str) -> BadInput:
        return BadInput(f"{type(self._recipe).__name__}.{name}: the buffer {why}")

    def settle(self, opening: Values, changes: list[Tensor]) -> None:
        """Move the shared values from where they were by the mean change."""
        for (name, buffer), change in zip(self._shared.items(), changes, strict=True):
            before = opening[name]
            moved = before + change if buffer.is_floating_point() else before.long() + change.round().long()
            buffer.copy_(torch.where(change == 0, before, moved.to(buffer.dtype)))

    def rows(self, v: int) -> Values:
        """The rows of slice `v`, views that its loss may write to."""
        return {name: buffer[self._span(buffer, v, v + 1)] for name, buffer in self._sliced.items()}

    def share(self, exchange: Exchange) -> None:
        """Give every process the rows that the others hold."""
        runs = [owned(rank, exchange.size, self._num_slices) for rank in range(exchange.size)]
        for buffer in self._sliced.values():
            spans = [self._span(buffer, *run) for run in runs]
            counts = [span.stop - span.start for span in spans]
            parts = exchange.gather(buffer[spans[exchange.rank]].clone(), counts)
            buffer.copy_(torch.cat(parts))

    def _span(self, buffer: Tensor, first: int, last: int) -> slice:
        rows = len(buffer) // self._num_slices
        return slice(first * rows, last * rows)
