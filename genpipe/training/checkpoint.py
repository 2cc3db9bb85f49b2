"""Checkpoints: safetensors files, the log, and a JSON file that says what they must be; no pickle, no time, no path.

`state.json` is written last: a directory without it is no checkpoint yet.
"""

import contextlib
import hashlib
import json
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor, nn

from genpipe.errors import BadInput
from genpipe.files import existing
from genpipe.training.runs import RunFiles

START = "checkpoints/step-"  # of the names of all their files
PARTS = ("weights", "optimiser", "average")
FILES = (*(f"{part}.safetensors" for part in PARTS), "metrics.jsonl")

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after `step` steps."""

    step: int
    weights: Tensors
    optimiser: Tensors
    log: bytes
    average: Tensors = field(default_factory=dict)  # of the parameters, where one is kept
    score: float | None = None  # by which the best one is told

    @property
    def result(self) -> Tensors:
        """The weights that a training ends with: averages where they are kept."""
        return self.weights | self.average


@dataclass(frozen=True)
class Keeping:
    """Which checkpoints stay: the last `last`, and the one with the best score."""

    last: int = 2
    best: Literal["lowest", "highest"] | None = None

    def best_of(self, scores: dict[str, float]) -> str | None:
        """The name with the best score, the earliest of equals."""
        if self.best is None or not scores:
            return None
        choose = min if self.best == "lowest" else max
        return choose(sorted(scores), key=scores.__getitem__)


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
        """Finish what is being written; where the training itself failed, that is what is told."""
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
    contents["metrics.jsonl"] = checkpoint.log
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    for name, content in contents.items():
        run.write(f"{directory}/{name}", content)
    run_name = run.directory.name
    state = {"run": run_name, "step": checkpoint.step, "sha256": hashes, "score": checkpoint.score}
    run.write(f"{directory}/state.json", json.dumps(state, indent=2, sort_keys=True).encode())
    _drop_others(run, keeping, directory)


def _drop_others(run: RunFiles, keeping: Keeping, newest: str) -> None:
    names = run.names()
    # a later one than was just written is damaged: the training went on from before it
    whole = [directory for directory in _whole(names) if directory <= newest]
    kept = {*whole[-keeping.last :], keeping.best_of(_scores(run, whole))}
    there = {name.rsplit("/", 1)[0] for name in names if name.startswith(START)}
    for directory in sorted(there - kept):  # also what killed processes left half-written
        run.remove(directory)


def directory_of(step: int) -> str:
    """Where the checkpoint of a step lies below its run; names sort as steps do."""
    return f"{START}{step:08d}"


def _whole(names: list[str]) -> list[str]:
    """The directories of the checkpoints that were written to their end, oldest first."""
    ends = (name for name in names if name.startswith(START) and name.endswith("/state.json"))
    return sorted(name.rsplit("/", 1)[0] for name in ends)


def _scores(run: RunFiles, directories: list[str]) -> dict[str, float]:
    states = {}
    for directory in directories:
        try:
            states[directory] = read_state(run, directory)
        except BadInput:
            continue
    return {directory: state["score"] for directory, state in states.items() if state["score"] is not None}


def latest_checkpoint(run: RunFiles) -> Checkpoint | None:
    """The newest whole checkpoint of a run, or None where there is none yet; a broken one is named and passed over."""
    found = _whole(run.names())
    for directory in reversed(found):
        try:
            return read_checkpoint(run, directory)
        except BadInput as error:
            print(f"genpipe: {error}; trying the checkpoint before it", file=sys.stderr)
    if found:
        raise BadInput(
            f"{run.place}: none of its {len(found)} checkpoints can be used; delete this directory to train anew"
        )
    return None


def best_checkpoint(run: RunFiles, keeping: Keeping) -> Checkpoint | None:
    """The checkpoint with the best score, or None where none has one."""
    best = keeping.best_of(_scores(run, _whole(run.names())))
    if best is None:
        return None
    try:
        return read_checkpoint(run, best)
    except BadInput as error:
        raise BadInput(
            f"{error}; it is the best one: delete {run.place} to train anew, or take train.best out"
        ) from None


def read_state(run: RunFiles, directory: str) -> dict[str, Any]:
    """What state.json says."""
    try:
        state = json.loads(run.read(f"{directory}/state.json"))
        hashes = {name: state["sha256"][name] for name in FILES}
        found = {"run": state["run"], "step": state["step"], "sha256": hashes, "score": state["score"]}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{run.place}/{directory}/state.json: the checkpoint is damaged: wanted run, step, sha256 and score as JSON: "
            f"{error!r}"
        ) from None
    if found["run"] != run.directory.name:
        raise BadInput(
            f"{run.place}/{directory}: wanted a checkpoint of {run.directory.name}, found one of {found['run']}"
        )
    return found


def read_checkpoint(run: RunFiles, directory: str) -> Checkpoint:
    """The checkpoint in a directory; a byte of difference from what was written is an error."""
    state = read_state(run, directory)
    contents = {name: run.read(f"{directory}/{name}") for name in state["sha256"]}
    for name, wanted in state["sha256"].items():
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != wanted:
            raise BadInput(
                f"{run.place}/{directory}/{name}: the checkpoint is damaged: "
                f"wanted sha256 {wanted[:12]}…, found {found[:12]}…"
            )
    tensors = {part: load(contents[f"{part}.safetensors"]) for part in PARTS}
    return Checkpoint(state["step"], log=contents["metrics.jsonl"], score=state["score"], **tensors)


def save_weights(tensors: Tensors, path: Path) -> None:
    """Write tensors as safetensors; equal tensors give equal bytes."""
    save_file(_copied(tensors), path)


def read_weights(path: Path) -> Tensors:
    """The tensors of a safetensors file; a truncated one is an error that names it."""
    try:
        return load_file(existing(path, "train the model first"))
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{path}: wanted a whole safetensors file: {error}; train again to write it anew"
        ) from None


def load_weights(recipe: nn.Module, path: Path) -> None:
    """Fill a recipe with the weights of a file; other names or shapes are an error."""
    weights = read_weights(path)
    wanted = {name: tuple(tensor.shape) for name, tensor in recipe.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise BadInput(
                f"{path}: {name}: wanted {wanted.get(name, 'nothing')}, found {found.get(name, 'nothing')}; "
                "the model was trained with other parameters, train it again"
            )
    with torch.no_grad():
        recipe.load_state_dict(weights)
