"""The promise, attacked: every recipe is trained under every disturbance, and must end on the same weights.

    python -m tests.exactness                     # all recipes, a few minutes; prints the table
    python -m tests.exactness --processors --write docs/exactness.md    # on emulated processors too: qemu-user, half an hour
    python -m tests.exactness toy nice            # some recipes

Processes are forked, form a group over gloo, and kill themselves with SIGKILL when a step begins; then the whole group
starts again from the last checkpoint, as Ray Train does it. (The same over Ray itself: tests/test_training_ray.py.)
"""

import argparse
import hashlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save

from genpipe.errors import BadInput
from genpipe.models import RECIPES
from genpipe.training.checkpoint import directory_of, latest_checkpoint
from genpipe.training.logical import Alone, Exchange, Processes
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer
from tests import tiny, toys

STEPS = 12
EVERY = 3  # steps between checkpoints
KILLS = (1, 4, 5, 8, 11)  # the steps at whose beginning a worker dies: before, at and after checkpoints
TOYS: Mapping[str, dict] = {
    "toy": {},
    "toy, EMA": {"ema": 0.9},
    "toy, bfloat16": {"precision": "bfloat16"},
    "toy, spectral norm": {"normalisations": {r"critic\.\d\.weight": "spectral"}},
    "toy, accumulation": {
        "solvers": {"fit": {"accumulate": 2}, "critic": {"accumulate": 3}, "generator": {"lr": 1e-2}}
    },
}
TOKENS: Mapping[str, dict] = {  # slices weigh as many tokens as they have
    "tokens": {},
    "tokens, accumulation": {"solvers": {"nll": {"lr": 0.1, "accumulate": 5}, "noise": {"lr": 0.1}}},
}
TECHNIQUES = {  # of every kind at once, on the classifier
    "optimiser": "momentum",
    "momentum": 0.9,
    "lookahead": 0.5,
    "accumulate": 2,
    "batch": [{"do": "mixup"}],
    "loss": [
        {"do": "fgm", "parameters": "head.weight"},
        {"do": "r_drop"},
        {"do": "flooding", "level": 1.5},
    ],
    "gradients": [{"do": "noise", "std": 0.01}, {"do": "clip_norm", "bound": 1.0, "form": "soft"}],
    "weights": [{"do": "unit", "parameters": "head.weight"}],
}
VARIANTS: Mapping[str, dict] = {
    "classifier, techniques": {"solvers": {"nll": TECHNIQUES}},
    **{name: {} for name in tiny.VARIANTS},
    "energy, frames": {"frames": 4, "ema": 0.9},
}
NAMES = (*TOYS, *TOKENS, *VARIANTS, *RECIPES)


@dataclass(frozen=True)
class Attempt:
    """Processes that train together until one of them dies, or the training is done."""

    size: int
    deaths: Mapping[int, int] = field(default_factory=dict)  # rank -> the step at whose beginning it dies
    damage: Callable[[Path], None] | None = None  # done to the run afterwards
    exchange: Callable[[], Exchange] = Processes


def cut_state(run: Path) -> None:
    """What a power cut may leave: the newest checkpoint's state.json half-written."""
    cut(max(run.glob("checkpoints/*/state.json")))


def cut_weights(run: Path) -> None:
    """The newest weights half-written."""
    cut(max(run.glob("checkpoints/*/state.json")).with_name("weights.safetensors"))


def cut(file: Path) -> None:
    """Drop the second half of a file."""
    os.truncate(file, file.stat().st_size // 2)


DISTURBANCES: Mapping[str, tuple[Attempt, ...]] = {
    "1 process": (Attempt(1),),
    "2 processes": (Attempt(2),),
    "3 processes": (Attempt(3),),
    "4 processes": (Attempt(4),),
    "first of 2 killed at 5 steps": (*(Attempt(2, {0: step}) for step in KILLS), Attempt(2)),
    "second of 2 killed at 5 steps": (*(Attempt(2, {1: step}) for step in KILLS), Attempt(2)),
    "all killed, run again": (Attempt(2, {0: 7, 1: 7}), Attempt(2)),
    "power cut, state half-written": (Attempt(1, {0: 11}, cut_state), Attempt(1)),
    "power cut, weights half-written": (Attempt(2, {0: 11}, cut_weights), Attempt(2)),
    "2, then 1, then 2 processes": (Attempt(2, {0: 4}), Attempt(1, {0: 8}), Attempt(2)),
    "4, then 3 processes": (Attempt(4, {3: 8}), Attempt(3)),
}


# For each recipe in every `make test`: a slice a process, a death between two checkpoints, and two slices a process.
QUICK = (Attempt(4, {3: 5}), Attempt(2))


class Deadly:
    """Data whose reader dies when it asks for the batch of a step in that step, once the checkpoint before it is there."""

    def __init__(self, trained: Trainer, step: int | None, run: Path) -> None:
        data = trained.data
        self._trained, self._data, self._step, self._run = trained, data, step, run
        self.facts = data.facts

    def train_batch(self, seed: int, step: int, batch_size: int) -> Mapping[str, torch.Tensor]:
        """The batch, or death."""
        # what prepares a phase looks at the batches of later steps
        if step == self._step == self._trained.step:
            self._await_checkpoint(step // EVERY * EVERY)
            os.kill(os.getpid(), signal.SIGKILL)
        return self._data.train_batch(seed, step, batch_size)

    def _await_checkpoint(self, step: int) -> None:
        """Until the thread that writes it is done; an error, so no death, where it does not come."""
        state = self._run / directory_of(step) / "state.json"
        for _ in range(6000):
            if not step or state.exists():
                return
            time.sleep(0.05)
        raise RuntimeError(f"{state}: the checkpoint before the death was not written")


def trainer(name: str, directory: Path, exchange, dies_at: int | None) -> Trainer:
    """A training of the tiny recipe `name`."""
    budget = {"steps": STEPS, "checkpoint_every": EVERY}
    if name in TOKENS:
        made = toys.token_trainer(Run(directory), exchange, **budget, **TOKENS[name])
    elif name in TOYS:
        made = toys.trainer(Run(directory), exchange, **budget, **TOYS[name])
    else:
        recipe = name.partition(",")[0]
        data = tiny.data_for(recipe, directory.with_name(f"{directory.name}-data-{exchange.rank}"))
        made = tiny.trainer_of(recipe, data, directory, exchange=exchange, **budget, **VARIANTS.get(name, {}))
    made.data = Deadly(made, dies_at, directory)
    return made


def work(name: str, directory: Path, attempt: Attempt, rank: int, store: Path) -> None:
    """One process of a training."""
    sys.stderr = store.with_suffix(f".{rank}").open("w")  # what the others say of a death is expected
    torch.set_num_threads(1)
    exchange: Exchange = Alone()
    if attempt.size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=attempt.size
        )
        exchange = attempt.exchange()
    trainer(name, directory, exchange, attempt.deaths.get(rank)).fit()


def run_group(name: str, directory: Path, attempt: Attempt, store: Path) -> None:
    """Train until all are done; when one dies, the others are ended too."""
    context = multiprocessing.get_context("fork")
    group = [
        context.Process(target=work, args=(name, directory, attempt, rank, store))
        for rank in range(attempt.size)
    ]
    for process in group:
        process.start()
    for rank in [*attempt.deaths, *range(attempt.size)]:
        group[rank].join(timeout=600)
        if group[rank].exitcode != 0:
            for process in group:
                process.kill()
    codes = {rank: process.exitcode for rank, process in enumerate(group)}
    died = {rank for rank in attempt.deaths if codes[rank] == -signal.SIGKILL}
    if died != set(attempt.deaths) or (not died and set(codes.values()) != {0}):
        said = "".join(store.with_suffix(f".{rank}").read_text() for rank in range(attempt.size))
        raise RuntimeError(
            f"{name}: wanted the deaths {dict(attempt.deaths)}, found exit codes {codes}\n{said}"
        )


def digest(name: str, attempts: tuple[Attempt, ...], directory: Path) -> str:
    """MD5 of what a training ends with after these attempts: weights, averages, optimisers, frames, and the log of every step."""
    run = directory / "run"
    for number, attempt in enumerate(attempts):
        run_group(name, run, attempt, directory / f"store-{number}")
        if attempt.damage:
            attempt.damage(run)
    checkpoint = latest_checkpoint(Run(run))
    if checkpoint is None or checkpoint.step != STEPS:
        raise BadInput(f"{name}: the training did not reach step {STEPS}")
    return digest_of(run)


def digest_of(run: Path) -> str:
    """MD5 of the newest checkpoint of a run."""
    checkpoint = latest_checkpoint(Run(run))
    assert checkpoint is not None
    parts = [checkpoint.weights, checkpoint.average, checkpoint.optimiser]
    parts += [checkpoint.frames] if checkpoint.frames else []
    return hashlib.md5(b"".join([*map(save, parts), checkpoint.log.text])).hexdigest()


def digests(name: str, disturbances: Iterable[str] = tuple(DISTURBANCES)) -> Iterator[tuple[str, str]]:
    """The digest after each of these disturbances."""
    for disturbance in disturbances:
        attempts = DISTURBANCES[disturbance]
        with tempfile.TemporaryDirectory() as directory:
            yield disturbance, digest(name, attempts, Path(directory))


Results = Mapping[str, Mapping[str, str]]  # MD5 by recipe, and by disturbance or emulated processor


def table(results: Results) -> str:
    """Markdown, a row a recipe: the first digits of what it ends on, and how many others end on the same."""
    head = "| recipe | 1 process ends on | disturbed | on emulated processors |\n|---|---|---|---|"
    rows = [
        f"| {name} | {next(iter(ends.values()))[:8]} | {_agreement(ends, DISTURBANCES)} | {_agreement(ends, ends.keys() - DISTURBANCES)} |"
        for name, ends in results.items()
    ]
    return "\n".join([head, *rows])


def _agreement(ends: Mapping[str, str], among: Collection[str]) -> str:
    """How many of some ends are the first of all, and what the others are."""
    first, *_ = ends.values()
    there = {disturbance: end for disturbance, end in [*ends.items()][1:] if disturbance in among}
    others = [f"{disturbance} on {end[:8]}" for disturbance, end in there.items() if end != first]
    same = f"{len(there) - len(others)} of {len(there)} the same" if there else "–"
    return "; ".join([same, *others])


PAGE = """# Exactness

What every recipe ends on, small as in `tests/tiny.py` and `tests/toys.py`, {steps} steps with a checkpoint after every third: the first
digits of the MD5 of all weights, averages, states of optimisers and the log of every step. Made by

    {command}

Each recipe trains on one process, and then under each of these disturbances: {disturbances}. A recipe keeps the promise where all of
them end on the same MD5; where one does not, its row names it.

A *kill* is SIGKILL at the beginning of the steps {kills}, one after the other in one training; the group starts again from
the last checkpoint each time. The toy has two phases, two players, batch normalisation, dropout, a gradient penalty, and a
replay buffer whose rows belong to logical workers; its variants add what their names say. The losses over *tokens* are means
over ragged sentences, so slices and accumulated turns weigh as many tokens as they have; two updates draw from one stream. The
last column is one process on emulated processors (qemu-user: {processors}), all others on this one: {processor}. All have
`numerics: portable`; with `native` they end on other numbers, and processors differ.

{table}
"""


def main() -> int:
    """Print the table, or write the page; 1 where a column holds two numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="RECIPE", help=f"default: all of {', '.join(NAMES)}")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there")
    parser.add_argument(
        "--processors", action="store_true", help="on emulated processors too: qemu-user, 10 CPU minutes each"
    )
    arguments = parser.parse_args()
    torch.optim.SGD(
        [torch.zeros(1)]
    )  # imports torch's compiler, a second of work, once for all that are forked
    results: dict[str, dict[str, str]] = {}
    for name in arguments.names or NAMES:
        results[name] = {}
        for disturbance, found in digests(name):
            results[name][disturbance] = found
            print(f"{name}: {disturbance}: {found}", file=sys.stderr, flush=True)
    emulated: list[str] = []
    if arguments.processors:
        from tests.processors import trained_everywhere  # it imports this module

        for processor, ends in trained_everywhere(results):
            emulated.append(processor)
            for name, found in ends.items():
                results[name][f"{processor}, emulated"] = found
    if arguments.write:
        kills = ", ".join(map(str, KILLS))
        known = torch.cpu.get_capabilities()
        kind = f"{known.get('cpu_name', 'unknown')}, {'with' if known.get('avx512_f') else 'without'} AVX-512"
        arguments.write.write_text(
            PAGE.format(
                command=" ".join(["python -m tests.exactness", *sys.argv[1:]]),
                steps=STEPS,
                kills=kills,
                disturbances=", ".join([*DISTURBANCES][1:]),
                table=table(results),
                processor=kind,
                processors=", ".join(emulated) or "none in this table",
            )
        )
    else:
        print(table(results))
    return int(any(len(set(result.values())) > 1 for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
