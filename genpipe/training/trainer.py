"""The trainer plays turns: for every step, every update of the phase, one optimiser step on the sum over all slices.

It knows no model. Randomness is a pure function of (seed, step, update, slice); which process computes a slice does
not matter; no random generator is carried from step to step, so none is saved.
"""

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

import torch
from torch import nn

from genpipe.data.loader import Batches, derived_seed
from genpipe.errors import BadInput
from genpipe.params.training import Training
from genpipe.recipe import Batch, Phase, Recipe
from genpipe.training import complaints
from genpipe.training.agreement import refuse_other_states, together
from genpipe.training.averages import Average
from genpipe.training.buffers import Buffers
from genpipe.training.checkpoint import Checkpoint, Keeping, Saver, Score, Tensors, latest_checkpoint
from genpipe.training.frames import Frames
from genpipe.training.log import Lines, Log, rows_of
from genpipe.training.logical import Exchange
from genpipe.training.runs import RunFiles
from genpipe.training.slices import (
    refuse_other_rows,
    seed_generators,
)
from genpipe.training.solver import Solver
from genpipe.training.turns import Turns

Validate = Callable[[Tensors], float]


class Trainer:
    """One training of one recipe, on one of the processes that share it."""

    def __init__(
        self,
        recipe: Recipe,
        data: Batches,
        params: Training,
        seed: int,
        exchange: Exchange,
        run: RunFiles,
        validate: Validate | None = None,
    ) -> None:
        """`validate` measures the weights that a checkpoint would be exported with; the first process calls it."""
        self.recipe = recipe.train()
        self.data = data
        self.params = params
        self.seed = seed
        self.exchange = exchange
        self.run = run
        self.validate = validate
        self.device = next(recipe.parameters()).device
        self.phases = recipe.phases()
        complaints.refuse_ambiguous(self.phases)
        self.starts = phase_starts(self.phases, params.steps)
        complaints.refuse_other_names(type(recipe).__name__, self.phases, params)
        complaints.refuse_idle(self.phases, [*self.starts, params.steps], params)
        self.buffers = Buffers(recipe, params.logical_workers)
        self.solvers = self._solvers()
        trained = first_steps(self.phases, self.starts)
        self.average = Average(recipe, params.ema, trained) if params.ema is not None else None
        self.frames = Frames(recipe, data, params.steps, params.frames, seed)
        self.turns = Turns(recipe, params, seed, exchange, run.directory.name, self.buffers, self.solvers)
        self.step = 0
        self.best: Score | None = None  # of the best checkpoint so far

    def fit(self) -> None:
        """Train from the last checkpoint, or from the start, to the last step."""
        lines = together(self.exchange, self.device, self._resume)
        refuse_other_states(self.exchange, self.device, self.step, self.recipe.state_dict())
        log = together(
            self.exchange, self.device, lambda: Log(self.run, lines) if self.exchange.rank == 0 else None
        )
        with Saver(self.run, keeping_of(self.params)) as saver:
            self._take_frame()  # of step 0
            while self.step < self.params.steps:
                metrics = self._play_step()
                self.step += 1
                self._take_frame()
                is_checkpoint = self._is_checkpoint()
                if is_checkpoint:
                    self.buffers.share(self.exchange)
                    refuse_other_states(self.exchange, self.device, self.step, self.recipe.state_dict())
                    metrics |= together(self.exchange, self.device, self._validated)
                if log:
                    log.append({"step": self.step, **metrics})
                if is_checkpoint:
                    together(self.exchange, self.device, lambda: self._save(log, saver))
            together(self.exchange, self.device, saver.wait)

    def _play_step(self) -> dict[str, float]:
        """All updates of one step; their metrics."""
        index = bisect_right(self.starts, self.step) - 1
        phase = self.phases[index]
        if phase.prepare and self.step == self.starts[index]:
            self.buffers.share(self.exchange)
            self._seed("prepare", phase.name)
            phase.prepare(self._batches())
        batch = self._batch(self.step)
        metrics: dict[str, float] = {}
        for update in phase.updates:
            if (self.step + 1) % update.every == 0:
                turn = self.turns.play(update, batch, self.step)
                self._seed(self.step, update.name, "solver")
                noted = self.solvers[update.name].step(turn.gradients, turn.value, self.step, turn.weight)
                metrics |= turn.metrics | {f"{update.name}.{name}": value for name, value in noted.items()}
        if self.average:
            self.average.add(self.step + 1)
        return metrics

    def _seed(self, *parts: object) -> None:
        seed_generators(derived_seed(self.seed, *parts), self.device)

    def _solvers(self) -> dict[str, Solver]:
        """A solver for each update."""
        updates = [update for phase in self.phases for update in phase.updates]
        names: dict[nn.Parameter, str] = {
            parameter: name for name, parameter in self.recipe.named_parameters()
        }
        return {
            u.name: Solver(u, self.params.solvers[u.name], names, self.params.steps, self.data.facts)
            for u in updates
        }

    def _batch(self, step: int) -> Batch:
        batch = self.data.train_batch(self.seed, step, self.params.batch_size)
        refuse_other_rows(batch, self.params.batch_size)
        progress = torch.tensor(step % self.params.steps / self.params.steps)
        return {name: value.to(self.device) for name, value in {**batch, "progress": progress}.items()}

    def _batches(self) -> Iterable[Batch]:
        """The batches of all steps, from the first on and without end; `progress` starts again after the last."""
        return (self._batch(step) for step in itertools.count())

    def _take_frame(self) -> None:
        """Draw the frame of this step, where one is due; on the first process, which then has the rows of all buffers."""
        if self.step not in self.frames.due:
            return
        self.buffers.share(self.exchange)
        average = self.average.tensors if self.average else {}
        take = lambda: self.frames.take(self.step, self.recipe, average) if self.exchange.rank == 0 else None
        together(self.exchange, self.device, take)

    def _is_checkpoint(self) -> bool:
        return self.step % self.params.checkpoint_every == 0 or self.step == self.params.steps

    def _validated(self) -> dict[str, float]:
        """The metric that tells the best checkpoint, on the first process, where it is one of a judge."""
        if self.validate is None or self.params.best is None or self.exchange.rank:
            return {}
        self._require_numbers()
        average = self.average.tensors if self.average else {}
        return {self.params.best.metric: self.validate(self.recipe.state_dict() | average)}

    def _require_numbers(self) -> None:
        """Raise where a weight is no number."""
        if not all(torch.isfinite(parameter).all() for parameter in self.recipe.parameters()):
            where = f"a weight of {type(self.recipe).__name__} after step {self.step}"
            raise complaints.diverged(where, self.run.directory.name)

    def _save(self, log: Log | None, saver: Saver) -> None:
        """Write a checkpoint of weights that are numbers; on the first process."""
        self._require_numbers()
        if log:
            saver.save(self._checkpoint(log.cut()))

    def _checkpoint(self, lines: Lines) -> Checkpoint:
        optimiser = {
            f"{name}/{key}": x for name, solver in self.solvers.items() for key, x in solver.state().items()
        }
        value = score_of(lines.text, self.params)
        score = None if value is None else Score(self.step, value)
        self.best = keeping_of(self.params).better(self.best, score)
        average = self.average.tensors if self.average else {}
        return Checkpoint(
            self.step, self.recipe.state_dict(), optimiser, lines, average, self.frames.taken, self.best
        )

    def _resume(self) -> bytes:
        """Take up the newest whole checkpoint; its log."""
        checkpoint = latest_checkpoint(self.run)
        if checkpoint is None:
            return b""
        self.recipe.load_state_dict(checkpoint.weights)
        for name, solver in self.solvers.items():
            prefix = name + "/"
            solver.load(
                {k.removeprefix(prefix): x for k, x in checkpoint.optimiser.items() if k.startswith(prefix)}
            )
        if self.average:
            self.average.load(checkpoint.average)
        self.frames.taken = dict(checkpoint.frames)
        self.step, self.best = checkpoint.step, checkpoint.best
        return checkpoint.log.text


def keeping_of(params: Training) -> Keeping:
    """Which checkpoints a training keeps."""
    return Keeping(params.keep, params.best.direction if params.best else None)


def score_of(lines: bytes, params: Training) -> float | None:
    """The mean of the metric that tells the best checkpoint, over the lines since the checkpoint before."""
    if params.best is None:
        return None
    rows = rows_of(lines.splitlines())
    metric = params.best.metric
    values = [row[metric] for row in rows if metric in row]
    there = sorted(set().union(*rows) - {"step"})
    if not values and metric.partition(".")[0] in {name.partition(".")[0] for name in there}:
        raise BadInput(f"train.best.metric: no {metric!r}; there is: {', '.join(there)}")
    return fmean(values) if values else None  # its update is of another phase


def phase_starts(phases: tuple[Phase, ...], steps: int) -> list[int]:
    """The first step of each phase; the shares of the phases cut the budget."""
    done = list(itertools.accumulate((phase.share for phase in phases), initial=0.0))
    return [round(steps * share / done[-1]) for share in done[:-1]]


def first_steps(phases: Sequence[Phase], starts: Sequence[int]) -> dict[nn.Parameter, int]:
    """The first step of the first phase that trains a parameter."""
    firsts: dict[nn.Parameter, int] = {}
    for phase, start in zip(phases, starts, strict=True):
        modules = (module for update in phase.updates for module in update.modules)
        for parameter in (parameter for module in modules for parameter in module.parameters()):
            firsts.setdefault(parameter, start)
    return firsts
