"""Checkpoints: safetensors files, and a JSON file that says what they and the log must be; no pickle, no time, no path.

`state.json` is written last: a directory without it is no checkpoint yet. It has a hash of its own content too.
"""

import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from genpipe.errors import BadInput, BadState
from genpipe.files import existing, new_file
from genpipe.training.log import Lines, store, stored
from genpipe.training.runs import RunFiles

CHECKPOINTS = "checkpoints"  # below the storage of a run
PARTS = ("weights", "optimiser", "average", "frames")

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Score:
    """What a checkpoint is judged by."""

    step: int
    value: float


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after `step` steps."""

    step: int
    weights: Tensors
    optimiser: Tensors
    log: Lines  # when it is saved, the lines since the checkpoint before; when it is read, all
    average: Tensors = field(default_factory=dict)  # of the weights, where one is kept
    frames: Tensors = field(default_factory=dict)  # drawn so far, by step
    best: Score | None = None  # of the best checkpoint up to this one

    @property
    def result(self) -> Tensors:
        """The weights that a training ends with: averages where they are kept."""
        return self.weights | self.average


@dataclass(frozen=True)
class Keeping:
    """Which checkpoints stay: the last `last`, and the one with the best score."""

    last: int = 2
    best: Literal["lowest", "highest"] | None = None

    def better(self, before: Score | None, after: Score | None) -> Score | None:
        """The better of two scores, the earlier of equals."""
        if before is None or after is None:
            return before or after
        is_better = after.value < before.value if self.best == "lowest" else after.value > before.value
        return after if is_better else before


class Saver:
    """Writes checkpoints beside the training: it copies the state, and a thread does the rest."""

    def __init__(self, run: RunFiles, keeping: Keeping) -> None:
        self._run = run
        self._keeping = keeping
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish what is being written; where the training itself failed, that error is raised."""
        with contextlib.suppress(*(() if kind is None else (Exception,))):
            self.wait()
        self._thread.shutdown()

    def save(self, checkpoint: Checkpoint) -> None:
        """Take a copy of a checkpoint and write it; waits for the one before."""
        self.wait()
        copied = {part: _copied(getattr(checkpoint, part)) for part in PARTS}
        self._pending = self._thread.submit(
            save_checkpoint, self._run, replace(checkpoint, **copied), self._keeping
        )

    def wait(self) -> None:
        """Until what was saved is written; raises what went wrong."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()


def _copied(tensors: Tensors) -> Tensors:
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in sorted(tensors.items())
    }


def save_checkpoint(run: RunFiles, checkpoint: Checkpoint, keeping: Keeping) -> None:
    """Write a checkpoint of a run, whole or not at all, and drop those that need not be kept."""
    directory = directory_of(checkpoint.step)
    contents = {f"{part}.safetensors": save(getattr(checkpoint, part)) for part in PARTS}
    for name, content in contents.items():
        run.write(f"{directory}/{name}", content)
    store(run, checkpoint.log)
    state = {
        "run": run.directory.name,
        "step": checkpoint.step,
        "best": checkpoint.best and asdict(checkpoint.best),
        "log_sha256": checkpoint.log.sha256,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    sealed = {**state, "state_sha256": _seal(state)}
    run.write(f"{directory}/state.json", json.dumps(sealed, indent=2, sort_keys=True).encode())
    _drop_others(run, keeping, directory, checkpoint.best)


def _seal(state: Mapping[str, Any]) -> str:
    """The hash of what a state says, its own left out."""
    content = {key: value for key, value in state.items() if key != "state_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _drop_others(run: RunFiles, keeping: Keeping, newest: str, best: Score | None) -> None:
    names = run.names(CHECKPOINTS)
    # a later one than was just written is damaged: the training went on from before it
    whole = [directory for directory in _whole(names) if directory <= newest]
    kept = {*whole[-keeping.last :], *([directory_of(best.step)] if best else [])}
    there = {name.rsplit("/", 1)[0] for name in names if name.startswith(f"{CHECKPOINTS}/step-")}
    for directory in sorted(there - kept):  # also what killed processes left half-written
        run.remove(directory)


def directory_of(step: int) -> str:
    """Where the checkpoint of a step lies below its run; names sort as steps do."""
    return f"{CHECKPOINTS}/step-{step:08d}"


def _whole(names: list[str]) -> list[str]:
    """The directories of the checkpoints that were written to their end, oldest first."""
    ends = (n for n in names if n.startswith(f"{CHECKPOINTS}/step-") and n.endswith("/state.json"))
    return sorted(name.rsplit("/", 1)[0] for name in ends)


def latest_checkpoint(run: RunFiles) -> Checkpoint | None:
    """The newest whole checkpoint of a run, or None where there is none yet; a broken one is named and passed over."""
    found = _whole(run.names(CHECKPOINTS))
    for directory in reversed(found):
        try:
            return read_checkpoint(run, directory)
        except BadState as error:
            print(f"genpipe: {error}; trying the checkpoint before it", file=sys.stderr)
    if found:
        raise BadState(
            f"{run.place}: none of its {len(found)} checkpoints can be used; delete this directory to train anew"
        )
    return None


def best_checkpoint(run: RunFiles, last: Checkpoint) -> Checkpoint | None:
    """The checkpoint that the last one says was the best, or None where it says nothing."""
    if last.best is None:
        return None
    try:
        return read_checkpoint(run, directory_of(last.best.step))
    except BadState as error:
        raise BadState(
            f"{error}; it is the best one: delete {run.place} to train anew, or take train.best out"
        ) from None


def read_state(run: RunFiles, directory: str) -> dict[str, Any]:
    """What state.json says; BadState where that is not what was written, or is of another run or step."""
    where = f"{run.place}/{directory}/state.json: the checkpoint is damaged"
    try:
        state = json.loads(run.read(f"{directory}/state.json"))
        is_sealed = state["state_sha256"] == _seal(state)
    except (ValueError, KeyError, TypeError) as error:
        raise BadState(f"{where}: no JSON with state_sha256: {error!r}") from None
    if not is_sealed:
        raise BadState(f"{where}: its content does not have the SHA-256 that it names")
    if state["run"] != run.directory.name:
        raise BadState(
            f"{run.place}/{directory}: a checkpoint of {state['run']}, not of {run.directory.name}"
        )
    if directory_of(state["step"]) != directory:
        raise BadState(f"{where}: it is of step {state['step']}, which is not that of its directory")
    return state


def read_checkpoint(run: RunFiles, directory: str) -> Checkpoint:
    """The checkpoint in a directory; a byte of difference from what was written is an error."""
    state = read_state(run, directory)
    contents = {name: run.read(f"{directory}/{name}") for name in state["sha256"]}
    for name, wanted in state["sha256"].items():
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != wanted:
            raise BadState(
                f"{run.place}/{directory}/{name}: the checkpoint is damaged: "
                f"its SHA-256 is {found[:12]}…, and must be {wanted[:12]}…"
            )
    tensors = {part: load(contents[f"{part}.safetensors"]) for part in PARTS}
    best = state["best"] and Score(**state["best"])
    return Checkpoint(
        state["step"], log=stored(run, state["step"], state["log_sha256"]), best=best, **tensors
    )


def save_weights(tensors: Tensors, path: Path) -> None:
    """Write tensors as safetensors, whole or not at all; equal tensors give equal bytes."""
    with new_file(path) as partial:
        partial.write_bytes(save(_copied(tensors)))  # save_file would keep all others from reading it


def read_weights(path: Path) -> Tensors:
    """The tensors of a safetensors file; a truncated one is an error that names it."""
    try:
        return load_file(existing(path, "train the model first"))
    except (SafetensorError, OSError) as error:
        raise BadState(
            f"{path}: not a whole safetensors file: {error}; train again to write it anew"
        ) from None


def load_fitting(recipe: nn.Module, path: Path) -> list[str]:
    """Fill what a recipe has under the same name and of the same shape as a file of weights; the rest stays as it is.

    Gives the names of the tensors of the recipe that the file did not fill. Raises BadInput where nothing fits.
    """
    mine = recipe.state_dict()
    fitting = {
        name: tensor
        for name, tensor in read_weights(path).items()
        if name in mine and mine[name].shape == tensor.shape
    }
    if not fitting:
        raise BadInput(
            f"{path}: no tensor of it has a name and a shape of {type(recipe).__name__}, so nothing can be taken over; "
            "set start: none, or name a model that has the same bricks"
        )
    with torch.no_grad():
        recipe.load_state_dict(fitting, strict=False)
    return [name for name in mine if name not in fitting]


def load_weights(recipe: nn.Module, path: Path) -> None:
    """Fill a recipe with the weights of a file; other names or shapes are an error."""
    weights = read_weights(path)
    wanted = {name: tuple(tensor.shape) for name, tensor in recipe.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise BadState(
                f"{path}: {name}: the recipe has {wanted.get(name, 'nothing')}, the file {found.get(name, 'nothing')}; "
                "the model was trained with other parameters, train it again"
            )
    with torch.no_grad():
        recipe.load_state_dict(weights)
