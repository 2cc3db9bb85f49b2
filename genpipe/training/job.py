"""What every process that shares a training must know of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genpipe.params.training import Training


@dataclass(frozen=True)
class Job:
    """A training of `model` on the data in a directory whose files have this hash.

    `start` is the directory of another trained model and the hash of its weights, `validator` that of the model in whose
    features samples of checkpoints are compared; `machine` is the kind of processor and the libraries that the card of the model names.
    """

    model: str
    data: Path
    data_sha256: str
    params: Training
    seed: int
    machine: Mapping[str, str]
    start: tuple[Path, str] | None = None
    validator: tuple[Path, str] | None = None
