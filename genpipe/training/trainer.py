"""The trainer plays turns: for every step, every update of the phase, one optimiser step on the sum over all slices.

It knows no model. Randomness is a pure function of (seed, step, update, slice); which process computes a slice does
not matter; no random generator is carried from step to step, so none is saved.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from genpipe.data.loader import Data, derived_seed
from genpipe.errors import BadInput
from genpipe.params.training import Training
from genpipe.recipe import Batch, Phase, Recipe, Update
from genpipe.training import log
from genpipe.training.agreement import refuse_other_states, together
from genpipe.training.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from genpipe.training.logical import Exchange, sum_over_slices
from genpipe.training.solver import Solver


class Diverged(BadInput):
    """A loss or a gradient is not a finite number."""


@dataclass(frozen=True)
class Turn:
    """What an update made of a step: the mean gradients, the buffers, and the scalars to log."""

    gradients: list[Tensor]
    metrics: dict[str, float]


class Trainer:
    """One training of one recipe, on one of the processes that share it."""

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        params: Training,
        seed: int,
        exchange: Exchange,
        run_directory: Path,
    ) -> None:
        self.recipe = recipe.train()
        self.data = data
        self.params = params
        self.seed = seed
        self.exchange = exchange
        self.run_directory = run_directory
        self.device = next(recipe.parameters()).device
        self.phases = recipe.phases()
        self.starts = phase_starts(self.phases, params.steps)
        self.buffers = dict(recipe.named_buffers())
        self.solvers = self._solvers()
        self.step = 0

    def fit(self) -> None:
        """Train from the last checkpoint, or from the start, to the last step."""
        mark = together(self.exchange, self.device, self._resume)
        refuse_other_states(self.exchange, self.device, self.step, self.recipe.state_dict())
        writer = log.Log(self.run_directory / log.NAME, mark) if self.exchange.rank == 0 else None
        while self.step < self.params.steps:
            metrics = self._play_step()
            self.step += 1
            if writer:
                writer.append({"step": self.step, **metrics})
                if self.step % self.params.checkpoint_every == 0 or self.step == self.params.steps:
                    save_checkpoint(self.run_directory, self._checkpoint(writer.mark))

    def _play_step(self) -> dict[str, float]:
        """All updates of one step; their metrics."""
        index = max(i for i, start in enumerate(self.starts) if start <= self.step)
        phase = self.phases[index]
        if phase.prepare and self.step == self.starts[index]:
            torch.manual_seed(derived_seed(self.seed, "prepare", phase.name))
            phase.prepare(self._batches())
        batch = {name: value.to(self.device) for name, value in self._batch(self.step).items()}
        metrics: dict[str, float] = {}
        for update in phase.updates:
            if (self.step + 1) % update.every == 0:
                turn = self._play(update, batch)
                self.solvers[update.name].step(turn.gradients, self.step)
                metrics.update(turn.metrics)
        return metrics

    def _play(self, update: Update, batch: Batch) -> Turn:
        """The mean over all slices of an update's gradients, metrics and changes of buffers."""
        opening = {name: buffer.clone() for name, buffer in self.buffers.items()}
        solver = self.solvers[update.name]
        names: list[str] = []

        def leaf(v: int) -> Tensor:
            for name, buffer in self.buffers.items():
                buffer.copy_(opening[name])
            torch.manual_seed(derived_seed(self.seed, self.step, update.name, v))
            loss = update.loss(slice_of(batch, v, self.params.logical_workers))
            gradients = torch.autograd.grad(loss.value, solver.parameters, allow_unused=True)
            self._refuse_unreached(update, solver, gradients)
            scalars = {f"{update.name}.loss": loss.value} | {
                f"{update.name}.{k}": x for k, x in sorted(loss.metrics.items())
            }
            names[:] = scalars
            changes = [buffer - opening[name] for name, buffer in self.buffers.items()]
            parts = [*gradients, *(scalar.detach() for scalar in scalars.values()), *changes]
            return torch.cat([part.flatten().to(loss.value.dtype) for part in parts])

        mean = sum_over_slices(self.params.logical_workers, leaf, self.exchange).div_(
            self.params.logical_workers
        )
        shapes = (
            [p.shape for p in solver.parameters]
            + [torch.Size()] * len(names)
            + [b.shape for b in opening.values()]
        )
        parts = unflatten(mean, shapes)
        gradients, parts = parts[: len(solver.parameters)], parts[len(solver.parameters) :]
        scalars, changes = parts[: len(names)], parts[len(names) :]
        for (name, buffer), change in zip(self.buffers.items(), changes, strict=True):
            buffer.copy_(
                opening[name] + (change if buffer.is_floating_point() else change.round().to(buffer.dtype))
            )
        if not torch.isfinite(mean.sum()):
            raise Diverged(
                f"update {update.name!r} of {type(self.recipe).__name__} is not finite at step {self.step}: "
                f"loss {scalars[0].item()}; lower its learning rate or set clip_norm "
                f"(the last good checkpoint is in {self.run_directory.name}/checkpoints)"
            )
        return Turn(gradients, dict(zip(names, torch.stack(scalars).tolist(), strict=True)))

    def _refuse_unreached(self, update: Update, solver: Solver, gradients: Iterable[Tensor | None]) -> None:
        """Each parameter of an update is there to be trained."""
        unreached = [name for name, gradient in zip(solver.names, gradients, strict=True) if gradient is None]
        if unreached:
            raise ValueError(
                f"update {update.name!r} of {type(self.recipe).__name__} does not reach {', '.join(unreached)}; "
                "drop the module from the update or use it in the loss"
            )

    def _solvers(self) -> dict[str, Solver]:
        """A solver for each update; the names in params.yaml must be those of the recipe."""
        updates = [update for phase in self.phases for update in phase.updates]
        wanted, given = {update.name for update in updates}, set(self.params.solvers)
        if wanted != given:
            raise BadInput(
                f"train.solvers of {type(self.recipe).__name__}: wanted {sorted(wanted)}, found {sorted(given)}"
            )
        names: dict[nn.Parameter, str] = {
            parameter: name for name, parameter in self.recipe.named_parameters()
        }
        return {u.name: Solver(u, self.params.solvers[u.name], names, self.params.steps) for u in updates}

    def _batch(self, step: int) -> Mapping[str, Tensor]:
        return self.data.train_batch(self.seed, step, self.params.batch_size)

    def _batches(self) -> Iterable[Batch]:
        """The batches of as many steps as a phase may ask for, from the first on."""
        return (self._batch(step) for step in range(self.params.steps))

    def _checkpoint(self, mark: log.Mark) -> Checkpoint:
        optimiser = {
            f"{name}/{key}": x for name, solver in self.solvers.items() for key, x in solver.state().items()
        }
        return Checkpoint(self.step, self.recipe.state_dict(), optimiser, mark)

    def _resume(self) -> log.Mark:
        """Take up the newest whole checkpoint; where its log ends."""
        checkpoint = latest_checkpoint(self.run_directory)
        if checkpoint is None:
            return log.START
        self.recipe.load_state_dict(checkpoint.weights)
        for name, solver in self.solvers.items():
            prefix = name + "/"
            solver.load(
                {k.removeprefix(prefix): x for k, x in checkpoint.optimiser.items() if k.startswith(prefix)}
            )
        self.step = checkpoint.step
        return checkpoint.log


def phase_starts(phases: tuple[Phase, ...], steps: int) -> list[int]:
    """The first step of each phase; the shares of the phases cut the budget."""
    total = sum(phase.share for phase in phases)
    done = [sum(phase.share for phase in phases[:i]) for i in range(len(phases))]
    return [round(steps * share / total) for share in done]


def slice_of(batch: Batch, v: int, num_slices: int) -> Batch:
    """The rows of a batch that logical worker `v` computes."""
    rows = len(next(iter(batch.values()))) // num_slices
    return {name: value[v * rows : (v + 1) * rows] for name, value in batch.items()}


def unflatten(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """The tensors of the given shapes that were flattened into one, [n]."""
    parts = flat.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
