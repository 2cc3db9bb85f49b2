"""Checkpoints: two safetensors files and a JSON file that says what they must be; no pickle, no time, no path."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genpipe.errors import BadInput
from genpipe.files import existing, new_directory, read_json, sha256, write_json
from genpipe.training import log

DIRECTORY = "checkpoints"  # of a run
KEPT = 2  # the newest, and the one before in case the newest is broken


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after `step` steps."""

    step: int
    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    log: log.Mark  # where the log of the run stood


def save_checkpoint(run_directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint of a run, whole or not at all, and drop the oldest."""
    directory = run_directory / DIRECTORY
    with new_directory(directory / f"step-{checkpoint.step:08d}") as partial:
        save_weights(checkpoint.weights, partial / "weights.safetensors")
        save_weights(checkpoint.optimiser, partial / "optimiser.safetensors")
        hashes = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        state = {"step": checkpoint.step, "sha256": hashes, "log": checkpoint.log._asdict()}
        write_json(partial / "state.json", state)
    for old in sorted(directory.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def latest_checkpoint(run_directory: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run, or None where there is none yet; a broken one is named and passed over."""
    found = sorted((run_directory / DIRECTORY).glob("step-*"), reverse=True)
    for path in found:
        try:
            checkpoint = read_checkpoint(path)
            log.start_of(run_directory / log.NAME, checkpoint.log)
            return checkpoint
        except BadInput as error:
            print(f"genpipe: {error}; trying the checkpoint before it", file=sys.stderr)
    if found:
        raise BadInput(
            f"{run_directory}: none of its {len(found)} checkpoints can be used; delete this directory to train anew"
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a directory; a byte of difference from what was written is an error."""
    state = read_json(existing(path / "state.json", "the checkpoint is not whole"))
    for name, wanted in state["sha256"].items():
        found = sha256(existing(path / name, "the checkpoint is not whole"))
        if found != wanted:
            raise BadInput(
                f"{path / name}: the checkpoint is damaged: wanted sha256 {wanted[:12]}…, found {found[:12]}…"
            )
    return Checkpoint(
        state["step"],
        read_weights(path / "weights.safetensors"),
        read_weights(path / "optimiser.safetensors"),
        log.Mark(**state["log"]),
    )


def save_weights(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors; equal tensors give equal bytes."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}, path)


def read_weights(path: Path) -> dict[str, Tensor]:
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
