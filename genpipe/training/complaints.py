"""What a training says when it cannot go on: where, why, and what to change."""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor

from genpipe.errors import BadInput, GenpipeError
from genpipe.metrics import explained
from genpipe.params.techniques import SamplePairing
from genpipe.params.training import Best, Training
from genpipe.recipe import Loss, Phase, Update
from genpipe.training.agreement import agreed
from genpipe.training.solver import schedule

NOTHING: Mapping[str, float] = MappingProxyType({})
DIRECTIONS = {"minimise": "lowest", "maximise": "highest"}  # of the table of metrics, as train.best says them


def diverged(where: str, run: str, scalars: Mapping[str, float] = NOTHING) -> BadInput:
    """The error of an update, or a weight, that is not finite; all processes see the same sum and find it."""
    values = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
    line = (
        f"{where} is not finite{': ' + values if values else ''}; lower its learning rate, or clip its gradients "
        f"(gradients: [{{do: clip_norm, bound: 1}}]); the last good checkpoint is the newest in .genpipe/runs/{run}"
    )
    return agreed(BadInput(line))


def refuse_watched(update: Update, where: str, run: str, metrics: Mapping[str, float]) -> None:
    """Raise, on all processes, where an update that watches its own metrics says that the training must stop."""
    own = {name.removeprefix(f"{update.name}."): value for name, value in metrics.items()}
    reason = update.watch(own) if update.watch else None
    if reason:
        raise agreed(
            BadInput(f"{where}: {reason}; the last good checkpoint is the newest in .genpipe/runs/{run}")
        )


def refuse_ambiguous(phases: Sequence[Phase]) -> None:
    """Raise where phases have shares that are none, or two updates have one name."""
    updates: dict[str, Update] = {}
    if not sum(phase.share for phase in phases):
        raise BadInput("phases: none has a share above 0; give one to at least one phase")
    for phase in phases:
        if not phase.share >= 0:
            raise BadInput(f"phase {phase.name!r}: the share must be 0 or more, not {phase.share}")
        for update in phase.updates:
            if update.every < 1:
                raise BadInput(
                    f"update {update.name!r}: must have a turn every 1 or more steps, not {update.every}"
                )
            if updates.setdefault(update.name, update) != update:
                raise BadInput(f"two updates are called {update.name!r}; rename one")
    _refuse_lonely_noise(updates.values())


def _refuse_lonely_noise(updates: Collection[Update]) -> None:
    """Raise where an update draws from a random stream that no other update draws from: most likely a misspelt name."""
    streams = Counter(update.noise or update.name for update in updates)
    for update in updates:
        if update.noise and update.noise != update.name and streams[update.noise] == 1:
            there = ", ".join(other.name for other in updates)
            raise BadInput(
                f"update {update.name!r}: no other update draws from the noise {update.noise!r}; the updates are: {there}"
            )


def refuse_other_names(recipe: str, phases: Iterable[Phase], params: Training) -> None:
    """Raise where the names in params.yaml are not those of the recipe's updates."""
    wanted, given = {update.name for phase in phases for update in phase.updates}, set(params.solvers)
    if wanted != given:
        raise BadInput(
            f"train.solvers of {recipe}: must be those of the updates, {sorted(wanted)}, not {sorted(given)}"
        )


def refuse_shapes(where: str, scalars: Mapping[str, Tensor]) -> None:
    """Raise where a loss or a metric of a slice is more than one number."""
    for name, value in scalars.items():
        if value.dim():
            raise BadInput(
                f"{where}: {name} must be one number, not of shape {list(value.shape)}; take its mean"
            )


def refuse_weight(where: str, loss: Loss) -> None:
    """Raise where the weight of a slice is not one number of units."""
    if loss.weight is not None and loss.weight.dim():
        raise BadInput(
            f"{where}: the weight has shape {list(loss.weight.shape)}, and must be one number; take its sum"
        )


def weightless(where: str) -> GenpipeError:
    """The error of a batch without a unit; all processes see the same sum."""
    line = (
        f"{where}: the weights of all slices add up to 0, so there is no mean; give each batch at least one unit, such as a "
        "target token"
    )
    return agreed(BadInput(line))


def refuse_idle(phases: Sequence[Phase], bounds: Sequence[int], params: Training) -> None:
    """Raise where an update cannot learn within its turns, or the one that tells the best checkpoint has none.

    `bounds` are the first steps of the phases, and one past the last step. A phase of share 0 is switched off.
    """
    turns: dict[str, list[range]] = {}
    for phase, (start, stop) in zip(phases, pairwise(bounds), strict=True):
        for update in phase.updates if phase.share else ():
            # the steps of which the number, from 1 on, is a multiple of `every`
            first = start + (-start - 1) % update.every
            turns.setdefault(update.name, []).append(range(first, stop, update.every))
    for name, spans in turns.items():
        _refuse_unlearnable(name, [step for span in spans for step in span], params)
    if params.best:
        _refuse_best(params.best, turns, params.steps)


def _refuse_best(best: Best, turns: Collection[str], steps: int) -> None:
    """Raise where no update has the metric of the best checkpoint, or the table of metrics does not say that it is better so."""
    if best.metric.partition(".")[0] not in {*turns, "validation"}:
        raise BadInput(
            f"train.best.metric: must be UPDATE.METRIC of {', '.join(sorted(turns))}, which have a turn within "
            f"{steps} steps, or validation.METRIC, not {best.metric!r}"
        )
    known = DIRECTIONS.get(explained(best.metric).direction)
    if known is None and "direction" not in best.model_fields_set:
        raise BadInput(
            f"train.best.direction: whether more or less of {best.metric!r} is better is not known; "
            f"say {' or '.join(DIRECTIONS.values())}"
        )
    if known and known != best.direction:
        raise BadInput(
            f"train.best.direction: the best {best.metric!r} is the {known}, not the {best.direction}; say {known}"
        )


def _refuse_unlearnable(name: str, turns: Sequence[int], params: Training) -> None:
    """Raise where an update makes no optimiser step at these steps, or its schedule goes beyond them."""
    if not turns:
        raise BadInput(f"train.steps: the update {name!r} has no turn within {params.steps} steps; take more")
    solver, where, end = params.solvers[name], f"train.solvers.{name}", turns[-1] + 1
    if solver.accumulate > len(turns):
        raise BadInput(
            f"{where}.accumulate: {solver.accumulate} batches make an optimiser step, and the update has "
            f"{len(turns)} turns within {params.steps} steps, so it makes none; take at most {len(turns)}"
        )
    if solver.warmup > end:
        raise BadInput(
            f"{where}.warmup: a warm-up of {solver.warmup} steps is longer than the training of the update, whose last "
            f"turn is step {end}; take at most {end}"
        )
    if solver.piecewise and max(solver.piecewise) > params.steps:
        raise BadInput(
            f"{where}.piecewise: step {max(solver.piecewise)} is beyond the end, step {params.steps}; end the points there"
        )
    for technique in solver.batch:
        if isinstance(technique, SamplePairing) and technique.start >= end:
            raise BadInput(
                f"{where}.batch: sample_pairing starts at step {technique.start}, and the last turn of the update is step "
                f"{end}; take less"
            )
    moves = turns[solver.accumulate - 1 :: solver.accumulate]
    if not any(schedule(solver, step, params.steps) for step in moves):
        raise BadInput(
            f"{where}.piecewise: the learning rate is 0 at every optimiser step of the update, {len(moves)} of them; "
            "give one of them a factor above 0"
        )


@contextlib.contextmanager
def memory_named(where: str, params: Training) -> Iterator[None]:
    """Where memory does not suffice for the block, say what to lower."""
    try:
        yield
    except RuntimeError as error:
        # torch.OutOfMemoryError is one; the allocator of CPUs has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        rows = params.batch_size // params.logical_workers
        raise BadInput(
            f"{where}: out of memory on a slice of {rows} examples; lower batch_size ({params.batch_size}), or raise "
            f"logical_workers ({params.logical_workers}) for smaller slices; both make other weights"
        ) from None
