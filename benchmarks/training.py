"""The trainer, measured on this machine: the ratios that docs/results.md reports.

python -m benchmarks.training [PART ...] [--artifacts DIR] [--rounds 5] [--steps 60] [--quiet-only]

PART is loop, processes, checkpoints or log; without one, all of them. Networks, batches and optimisers are those of
params.yaml, where nothing else is said. Every process has one thread.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import barrier, destroy_process_group, init_process_group
from torch.multiprocessing.spawn import spawn

from benchmarks import measure
from genpipe.assembly import build, keep_freed_memory
from genpipe.data.loader import Batches, Data
from genpipe.data.opening import open_data
from genpipe.errors import BadInput, GenpipeError
from genpipe.files import existing, read_json, write_json
from genpipe.params.project import read_params
from genpipe.params.training import Solver, Training
from genpipe.recipe import Recipe
from genpipe.training.log import SECONDS as SECONDS_BETWEEN_FLUSHES
from genpipe.training.log import Log, rows_of
from genpipe.training.logical import Alone, Exchange, Fast, Processes
from genpipe.training.runs import STREAM, Run
from genpipe.training.trainer import Trainer

PROJECT = Path(__file__).parents[1]
SEED = 1
WARM_UP = 5  # first steps of a training, which are not counted
SLICES = 4
# the speed of the trainer with so many slices by that of the bare loop, at least
IN_SLICES = {"classifier": ">= 0.85", "nice": ">= 0.88", "ogan": ">= 0.85", "couplet": ">= 0.83"}
CHECKPOINT_EVERY = 50
SHADOW = 10  # steps that a checkpoint, written by another thread, may slow down
FLUSHES = 50

Contestant = Callable[[], float]  # a run of it: the seconds that are compared


@dataclass(frozen=True)
class Setting:
    """Where the data of recipes are, and how long each contestant is measured."""

    artifacts: Path
    rounds: int
    steps: int
    quiet_only: bool = False


@dataclass(frozen=True)
class Case:
    """What is trained: a recipe by the facts of its data, and how."""

    make: Callable[[Mapping[str, Any]], Recipe]
    train: Training
    data: Path

    def open(self) -> Data:
        """The data, with batches as the training has them."""
        return open_data(self.data, self.train.batches)

    def changed(self, **changes: Any) -> "Case":
        """The same with other parameters of training."""
        return replace(self, train=changed(self.train, **changes))


@dataclass(frozen=True)
class Named:
    """A model of genpipe with its network; unlike a closure, it can be sent to a process."""

    model: str
    network: Mapping[str, Any]

    def __call__(self, facts: Mapping[str, Any]) -> Recipe:
        """A new recipe, of the same weights each time."""
        return build(self.model, self.network, facts, SEED)


class Clocked:
    """Data that notes when the batch of each step was asked for: a training's steps, timed from outside."""

    def __init__(self, data: Batches) -> None:
        self.facts = data.facts
        self.times: list[float] = []
        self._data = data

    def train_batch(self, seed: int, step: int, batch_size: int) -> Mapping[str, Tensor]:
        """The batch of the data, noted."""
        self.times.append(time.perf_counter())
        return self._data.train_batch(seed, step, batch_size)

    def seconds(self) -> list[float]:
        """Those of each step but the last, which nothing follows."""
        return [end - start for start, end in pairwise(self.times)]


def bare_loop(recipe: Recipe, data: Batches, train: Training, num_slices: int = 1) -> None:
    """What one would write by hand for a recipe of one update; with slices, their gradients add up before a step."""
    (update,) = recipe.phases()[0].updates
    optimiser = bare_optimiser(train.solvers[update.name], list(recipe.parameters()))
    for step in range(train.steps):
        batch = data.train_batch(SEED, step, train.batch_size)
        optimiser.zero_grad()
        for v in range(num_slices):
            part = {name: value.chunk(num_slices)[v] for name, value in batch.items()}
            (update.loss(part).value / num_slices).backward()
        optimiser.step()


def bare_optimiser(solver: Solver, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """torch's own, fused where it can be on a CPU."""
    if solver.optimiser == "rmsprop":
        return torch.optim.RMSprop(parameters, solver.lr, solver.alpha, solver.eps)
    if solver.optimiser == "adam":
        return torch.optim.Adam(parameters, solver.lr, solver.betas, solver.eps, fused=True)
    raise BadInput(
        f"the recipe must be trained with adam or rmsprop, not {solver.optimiser}; name another one"
    )


def changed(train: Training, **changes: Any) -> Training:
    """Parameters of training with changes, checked as those of params.yaml are."""
    return Training.model_validate({**train.model_dump(exclude_unset=True), **changes})


def case_of(setting: Setting, name: str, network: Mapping[str, Any] | None = None, **changes: Any) -> Case:
    """A recipe of params.yaml for as many steps as are measured, without a checkpoint before the end."""
    block = read_params(PROJECT).named("recipes", name)
    steps = WARM_UP + setting.steps + 1
    train = changed(block.train, **{"steps": steps, "checkpoint_every": steps, **changes})
    named = Named(block.model, {**train.network, **(network or {})})
    return Case(named, train, setting.artifacts / block.data)


def trainer_steps(case: Case, exchange: Exchange | None = None) -> list[float]:
    """Seconds of each step of the trainer, with everything that a training does between two steps."""
    data = Clocked(case.open())
    with tempfile.TemporaryDirectory(prefix="training-") as scratch:
        recipe = case.make(data.facts)
        Trainer(recipe, data, case.train, SEED, exchange or Alone(), Run(Path(scratch))).fit()
    return data.seconds()


def bare_steps(case: Case, num_slices: int = 1) -> list[float]:
    """Seconds of each step of the bare loop."""
    data = Clocked(case.open())
    bare_loop(case.make(data.facts), data, case.train, num_slices)
    return data.seconds()


def mean_step(seconds: list[float]) -> float:
    """Seconds a step, after the first ones."""
    return statistics.fmean(seconds[WARM_UP:])


def alternated(contestants: Mapping[str, Contestant], setting: Setting, title: str) -> dict[str, list[float]]:
    """The seconds of each, round by round; a first round is not counted. Without a title, nothing is reported meanwhile."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(setting.rounds + 1):
        for name in measure.rotated(list(contestants), number):
            if setting.quiet_only:
                measure.wait_for_quiet()
            value = contestants[name]()
            if number:
                seconds[name].append(value)
            if title:
                line = f"round {number} of {setting.rounds}: {title}, {name}: {value * 1e3:.2f} ms"
                print(line, file=sys.stderr, flush=True)
    return seconds


# ------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Row:
    """A line of the table: seconds, round by round, of what is measured and of what it is compared with."""

    title: str
    what: str
    seconds: list[float]
    base: list[float] | None = None  # a ratio of speeds where there is one
    step: list[float] | None = None  # a share of a step where there is one
    target: str = ""

    def __str__(self) -> str:
        time_taken = spread([value * 1e3 for value in self.seconds])
        return f"| {self.title} | {self.what} | {time_taken} | {self._beside()} | {self.target} |"

    def _beside(self) -> str:
        if self.base:
            return f"{spread([b / s for s, b in zip(self.seconds, self.base, strict=True)])} x"
        if self.step:
            return (
                f"{spread([100 * s / b for s, b in zip(self.seconds, self.step, strict=True)])} % of a step"
            )
        return ""


def table(rows: list[Row]) -> str:
    """Markdown; ratios are those of speeds within a round."""
    head = [
        "| model | what | ms, median (min-max) | ratio, median (min-max) | target |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(str, rows)])


def spread(values: list[float]) -> str:
    """The median, and the least and the greatest, to three digits."""
    median, least, greatest = (f"{x:.3g}" for x in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least}-{greatest})"


# ------------------------------------------------------------------------------------------------------- the parts


def loop(setting: Setting) -> list[Row]:
    """The trainer against a bare loop, on one process; the bare loop in slices tells what small batches cost torch."""
    rows = []
    for name in IN_SLICES:
        whole, sliced = (case_of(setting, name, logical_workers=v) for v in (1, SLICES))
        contestants: dict[str, Contestant] = {
            "bare loop": lambda case=whole: mean_step(bare_steps(case)),
            "trainer, 1 slice": lambda case=whole: mean_step(trainer_steps(case)),
            f"bare loop, {SLICES} slices": lambda case=whole: mean_step(bare_steps(case, SLICES)),
            f"trainer, {SLICES} slices": lambda case=sliced: mean_step(trainer_steps(case)),
        }
        seconds = alternated(contestants, setting, name)
        bars = dict(zip(contestants, ("", ">= 0.95", "", IN_SLICES[name]), strict=True))
        base = seconds["bare loop"]
        rows += [Row(name, what, taken, base, target=bars[what]) for what, taken in seconds.items()]
    return rows


def processes(setting: Setting) -> list[Row]:
    """Two processes against one, after their start, by either exchange."""
    cases = {
        "classifier, width 64, batch 256": case_of(setting, "classifier", {"width": 64}, batch_size=256),
        "ogan, width 64, batch 128": case_of(setting, "ogan", {"width": 64}, batch_size=128),
        "nice": case_of(setting, "nice"),
    }
    with tempfile.TemporaryDirectory(prefix="processes-") as scratch:
        spawn(_compete, (Path(scratch), cases, setting), nprocs=2)
        measured = {title: read_json(Path(scratch) / f"{title}.json") for title in cases}
    rows = []
    for title, seconds in measured.items():
        target = ">= 1.7" if title != "nice" else ""
        bars = {"1 process": "", "2 processes, exact": target, "2 processes, fast": ""}
        rows += [Row(title, what, seconds[what], seconds["1 process"], target=bars[what]) for what in bars]
    return rows


def _compete(rank: int, scratch: Path, cases: Mapping[str, Case], setting: Setting) -> None:
    """One of two processes; the first also trains alone, while the other waits."""
    torch.set_num_threads(1)
    keep_freed_memory()
    init_process_group("gloo", init_method=f"file://{scratch}/store", rank=rank, world_size=2)
    for title, case in cases.items():
        contestants: dict[str, Contestant] = {
            "1 process": lambda case=case: _alone(rank, case),
            "2 processes, exact": lambda case=case: mean_step(trainer_steps(case, Processes())),
            "2 processes, fast": lambda case=case: mean_step(trainer_steps(case, Fast())),
        }
        seconds = alternated(contestants, setting, "" if rank else title)
        if rank == 0:
            write_json(scratch / f"{title}.json", seconds)
    destroy_process_group()


def _alone(rank: int, case: Case) -> float:
    seconds = mean_step(trainer_steps(case)) if rank == 0 else 0.0
    barrier()
    return seconds


def checkpoints(setting: Setting) -> list[Row]:
    """What a checkpoint takes of the training's own time; the same steps without one tell the noise."""
    rows = []
    for name in ("classifier", "nice"):
        case = case_of(setting, name, steps=2 * CHECKPOINT_EVERY + 2 * SHADOW)
        saving = case.changed(checkpoint_every=CHECKPOINT_EVERY)
        contestants: dict[str, Contestant] = {
            "a checkpoint": lambda case=saving: excess(trainer_steps(case), CHECKPOINT_EVERY),
            "the same steps without": lambda case=case: excess(trainer_steps(case), CHECKPOINT_EVERY),
        }
        rows += [Row(name, what, taken) for what, taken in alternated(contestants, setting, name).items()]
    return rows


def excess(seconds: list[float], every: int) -> float:
    """What the `SHADOW` steps from each checkpoint on took beyond the usual step, in seconds a checkpoint."""
    shadows = [seconds[last : last + SHADOW] for last in range(every - 1, len(seconds), every)]
    shadowed = {i for last in range(every - 1, len(seconds), every) for i in range(last, last + SHADOW)}
    # the mean, as of the shadows: a median of skewed times would charge checkpoints with the skew
    usual = statistics.fmean(s for i, s in enumerate(seconds) if i >= WARM_UP and i not in shadowed)
    return statistics.fmean(sum(shadow) - len(shadow) * usual for shadow in shadows)


def log(setting: Setting) -> list[Row]:
    """What the log takes of a step: a line of JSON, and a write now and then."""
    rows = []
    for name in ("classifier", "nice", "ogan"):
        case = case_of(setting, name)
        step: Contestant = lambda case=case: mean_step(trainer_steps(case))
        steps = alternated({"a step": step}, setting, name)["a step"]
        metrics = first_metrics(case)
        taken = [log_seconds(metrics, seconds) for seconds in steps]
        rows.append(Row(name, "the log, a step", taken, step=steps, target="< 1 %"))
    return rows


def first_metrics(case: Case) -> dict[str, float]:
    """What the log has of the first step of a training."""
    data = case.open()
    params = changed(case.train, steps=1)
    with tempfile.TemporaryDirectory(prefix="training-") as scratch:
        Trainer(case.make(data.facts), data, params, SEED, Alone(), Run(Path(scratch))).fit()
        return rows_of((Path(scratch) / STREAM).read_bytes().splitlines())[0]


def log_seconds(metrics: Mapping[str, float], step: float) -> float:
    """Seconds a line, where a step takes `step` seconds, which says how many lines go into a write."""
    lines = max(1, round(SECONDS_BETWEEN_FLUSHES / step))
    with tempfile.TemporaryDirectory(prefix="log-") as scratch:
        written = Log(Run(Path(scratch)), b"")
        started = time.perf_counter()
        for _ in range(FLUSHES):
            for _ in range(lines):
                written.append(metrics)
            written.flush()
        return (time.perf_counter() - started) / (FLUSHES * lines)


def print_table(
    doc: str | None, recipe: str, measured: Callable[[Setting, str], list[Row]], steps: int = 60
) -> None:
    """The command line of a benchmark of one recipe of params.yaml: measure and print its table."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default=recipe, metavar="NAME")
    add_setting(parser, steps)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # for loops by hand, too, which gain as much by it
    try:
        print(table(measured(setting_of(given), given.recipe)))
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def add_setting(parser: argparse.ArgumentParser, steps: int = 60) -> None:
    """The options of a setting."""
    parser.add_argument("--artifacts", type=Path, default=PROJECT / "artifacts", metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=steps, help="counted, of each training")
    parser.add_argument("--quiet-only", action="store_true", help="wait until other programs are quiet")


def setting_of(given: argparse.Namespace) -> Setting:
    """The setting that the options say."""
    artifacts = existing(given.artifacts, "run the stages prepare and encode").resolve()
    return Setting(artifacts, given.rounds, given.steps, given.quiet_only)


PARTS: dict[str, Callable[[Setting], list[Row]]] = {
    "loop": loop,
    "processes": processes,
    "checkpoints": checkpoints,
    "log": log,
}


def main() -> None:
    """Measure the parts and print their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    add_setting(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # for the bare loop, too, which gains as much by it
    try:
        parts = measure.chosen(given.parts, PARTS)
        setting = setting_of(given)
        print(table([row for part in parts for row in PARTS[part](setting)]))
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
