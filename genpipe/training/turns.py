"""A turn of an update in one step: the loss and the gradients of each slice, and their means over all slices.

Randomness is a pure function of (seed, step, update, slice); which process computes a slice does not matter.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from genpipe.data.loader import derived_seed
from genpipe.errors import BadInput
from genpipe.params.training import Training
from genpipe.recipe import Batch, Loss, Recipe, Update
from genpipe.training import complaints
from genpipe.training.buffers import Buffers
from genpipe.training.logical import Exchange, Row, sum_over_slices
from genpipe.training.slices import averaged, own_memory, seed_generators, slice_of, weighed
from genpipe.training.solver import Solver
from genpipe.training.stacked import Refused, settle
from genpipe.training.together import Held, Ways, differentiated


@dataclass(frozen=True)
class Turn:
    """What an update made of a step: the mean gradients, the raw loss, and the scalars to log."""

    gradients: list[Tensor]
    value: float
    metrics: dict[str, float]
    weight: float  # mean number of units of a slice


class Turns:
    """The turns of the updates of a training, on one of the processes that share it."""

    def __init__(
        self,
        recipe: Recipe,
        params: Training,
        seed: int,
        exchange: Exchange,
        run: str,
        buffers: Buffers,
        solvers: Mapping[str, Solver],
    ) -> None:
        """`run`: the directory of the run, below .genpipe/runs."""
        self.recipe, self.params, self.seed, self.exchange, self.run = recipe, params, seed, exchange, run
        self.buffers, self.solvers = buffers, solvers
        self.device = next(recipe.parameters()).device
        self.everything = list(recipe.parameters())
        self.attributes = [x for module in recipe.modules() for x in (vars(module), module._buffers)]
        held = Held.by(exchange.rank, exchange.size, params.logical_workers, params.batch_size)
        self.ways = Ways(held, self._why_not_together())

    def play(self, update: Update, batch: Batch, step: int) -> Turn:
        """The means over all units of a batch of an update's gradients and metrics, and of the changes of buffers."""
        opening = self.buffers.opening()
        num_slices, num_gradients = self.params.logical_workers, len(self.solvers[update.name].parameters)
        names: list[str] = []

        def row(loss: Loss, gradients: Row) -> Row:
            scalars = {"loss": loss.value, **dict(sorted(loss.metrics.items()))}
            complaints.refuse_shapes(self._where(update, step), scalars)
            names[:] = [f"{update.name}.{name}" for name in scalars]
            numbers = torch.stack([x.detach().double() for x in scalars.values()])
            changes = self.buffers.changes(opening)
            counted = torch.cat([numbers, numbers.new_ones(1)])
            if loss.weight is None:
                return [*gradients, counted, *changes]
            return weighed([*gradients, counted, *changes], loss.weight.item())

        def alone(v: int) -> Row:
            self.buffers.restore(opening)
            self._seed(step, update.noise or update.name, v)
            rows = slice_of(batch, v, num_slices, self.params.batch_size)
            return row(*self._differentiate(update, step, {**rows, **self.buffers.rows(v)}))

        def together(batch: Batch) -> list[Row]:
            self.buffers.restore(opening)
            return [row(*made) for made in self._differentiate_together(update, step, batch)]

        with complaints.memory_named(self._where(update, step), self.params):
            rows = self.ways.rows(update.name, batch, alone, together, num_gradients)
            total = sum_over_slices(num_slices, rows, self.exchange)
        weight = total[num_gradients][-1].item()
        if weight == 0:
            raise complaints.weightless(self._where(update, step))
        size = averaged(total, weight, num_gradients)
        gradients, scalars, changes = (
            total[:num_gradients],
            total[num_gradients][:-1],
            total[num_gradients + 1 :],
        )
        self.buffers.settle(opening, changes)
        values = scalars.tolist()
        metrics = dict(zip(names, values, strict=True))
        if not math.isfinite(sum(values) + size):
            raise complaints.diverged(self._where(update, step), self.run, metrics)
        complaints.refuse_watched(update, self._where(update, step), self.run, metrics)
        return Turn(gradients, values[0], metrics, weight / num_slices)

    def _differentiate(self, update: Update, step: int, batch: Batch) -> tuple[Loss, Row]:
        """The loss of a slice, and its gradients, each in memory of its own."""
        solver = self.solvers[update.name]
        with self._precision():
            loss = solver.loss(batch, step)
        complaints.refuse_shapes(self._where(update, step), {"loss": loss.value})
        complaints.refuse_weight(self._where(update, step), loss)
        gradients = torch.autograd.grad(loss.value, solver.parameters, allow_unused=True)
        unreached = [name for name, g in zip(solver.names, gradients, strict=True) if g is None]
        if unreached:
            raise BadInput(
                f"{self._where(update, step)} does not reach {', '.join(unreached)}; drop the module from the update or use "
                "it in the loss"
            )
        return loss, own_memory([g for g in gradients if g is not None])

    def _differentiate_together(self, update: Update, step: int, batch: Batch) -> list[tuple[Loss, Row]]:
        """The same of all slices that this process holds."""
        solver, held = self.solvers[update.name], self.ways.held
        seeds = [derived_seed(self.seed, step, update.noise or update.name, v) for v in range(*held.slices)]
        before = self.buffers.versions()
        try:
            made = differentiated(
                lambda rows: solver.loss(rows, step),
                batch,
                held,
                solver.parameters,
                self.everything,
                seeds,
                self.ways.trust,
            )
        finally:
            settle(self.attributes)
        if self.buffers.versions() != before:
            raise Refused("changes buffers")
        for loss, _ in made:
            complaints.refuse_weight(self._where(update, step), loss)
        return made

    def _why_not_together(self) -> str:
        """Why slices are computed one after the other; empty where nothing speaks against all at once."""
        if self.recipe.sliced:
            return "buffers are cut by rows"
        if self.device.type != "cpu":
            return "the device is no CPU"
        return "" if self.params.precision == "float32" else f"the precision is {self.params.precision}"

    def _precision(self) -> AbstractContextManager[object]:
        if self.params.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()  # an autocast that is off costs a tenth of a millisecond

    def _seed(self, *parts: object) -> None:
        seed_generators(derived_seed(self.seed, *parts), self.device)

    def _where(self, update: Update, step: int) -> str:
        return f"update {update.name!r} of {type(self.recipe).__name__} at step {step}"
