"""Batches as a pure function of (seed, step): the loader has no state, so resuming needs only the step number."""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from genpipe import files as file_tools
from genpipe.codec_files import SPECIAL, require_codec
from genpipe.errors import BadInput, BadState
from genpipe.files import CODEC, TOKENIZERS, existing
from genpipe.params.blocks import Count

Example = Mapping[str, Tensor]  # tensors whose first dimension is the row
AGAIN = "run the stage that makes it again (genpipe plan names it)"
Size = Annotated[int, Field(ge=0)]
# The facts that genpipe itself reads or writes; those of a person's own kind of data may be anything.
FACTS: Mapping[str, TypeAdapter[Any]] = {
    "image_shape": TypeAdapter(Annotated[list[Count], Field(min_length=3, max_length=3)]),
    "classes": TypeAdapter(list[str]),
    **dict.fromkeys(("num_classes", "num_tags", "dim", "num_tokens", "time"), TypeAdapter(Count)),
    **dict.fromkeys(("num_images", "num_groups", "max_length", *SPECIAL), TypeAdapter(Size)),
}
ANYTHING = TypeAdapter(Any)
OF_IDS = ("num_tokens", *SPECIAL)
NEEDED: Mapping[str, tuple[str, ...]] = {
    "images": ("image_shape",),
    "points": ("dim",),
    "pairs": (*OF_IDS, "max_length"),
    **dict.fromkeys(("stream", "passages", "groups", "tagged"), OF_IDS),
}
CHUNK = 100  # rows of a split at once; fixed, since the size of a matrix product may change its last bits


class Batches(Protocol):
    """What the trainer asks for."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a model must know to be built: image_shape, num_classes, num_tokens."""
        ...

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """The batch of a step, each tensor with `batch_size` rows; the same for the same arguments."""
        ...


class Data(Batches, Protocol):
    """What a recipe trains on and is judged by."""

    @property
    def directory(self) -> Path:
        """Where its files are."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the parts: train, test, and any others."""
        ...

    @property
    def unit(self) -> str:
        """What a likelihood is divided by: pixel, token, point."""
        ...

    @property
    def rows_together(self) -> int:
        """Neighbouring rows that belong in one slice: the rows of a slice are a multiple of it."""
        ...

    def split(self, name: str) -> Iterator[Example]:
        """All rows of a split in a fixed order, CHUNK rows at a time."""
        ...

    def units(self, example: Example) -> Tensor:
        """The number of units of each row, int64 [rows]."""
        ...


class Described:
    """A data directory with its data.json: {"kind", "splits", "facts"}."""

    rows_together = 1

    def __init__(self, directory: Path) -> None:
        described = read_description(directory)
        self.directory = directory
        self.splits = tuple(described["splits"])
        require_facts(directory, described, AGAIN)
        self.facts = facts_of(described)
        self.require("train")

    def require(self, split: str) -> str:
        """`split` itself, or the error that lists the splits."""
        if split not in self.splits:
            raise BadInput(
                f"{self.directory}: no split {split!r}, it has: {', '.join(self.splits)}; "
                "set datasets.*.test_share, or add a file of that name to the source"
            )
        return split

    def require_rows(self, split: str, number: int) -> None:
        """Raise BadInput where a split is empty."""
        if not number:
            raise BadInput(f"{self.directory}: the split {split} is empty; add examples to its source")


def read_description(directory: Path) -> dict[str, Any]:
    """What data.json says of a directory that `genpipe prepare` or `genpipe encode` wrote."""
    described = file_tools.read_description(directory)
    path = directory / "data.json"
    for key, value in described["facts"].items():
        try:
            FACTS.get(key, ANYTHING).validate_python(value, strict=True)
        except ValidationError as error:
            raise BadState(
                f"{path}: facts: {key}: {error.errors()[0]['msg']}, not {value!r:.60}; {AGAIN}"
            ) from None
    return described


def require_facts(directory: Path, described: Mapping[str, Any], remedy: str) -> None:
    """Raise BadState where a fact is missing that all data of its kind has, or where facts and files disagree."""
    path, facts, kind = directory / "data.json", described["facts"], described["kind"]
    for key in NEEDED.get(kind, ()):
        if key not in facts:
            raise BadState(f"{path}: facts: no {key}, which data of the kind {kind} has; {remedy}")
    number = facts.get("num_tags", facts.get("num_classes"))
    if "classes" in facts and len(facts["classes"]) != number:
        raise BadState(f"{path}: facts: {len(facts['classes'])} names of {number} classes; {remedy}")
    if "num_tokens" in facts:
        require_codec(directory, facts, remedy)


def codec_files(directory: Path) -> list[Path]:
    """What turns text into ids, which a model takes with it; BadState where data of ids lacks it."""
    if "num_tokens" not in read_description(directory)["facts"]:
        return []
    for name in CODEC:
        existing(directory / name, "run the stage that makes it again (genpipe plan names it)")
    return [path for name in (*CODEC, *TOKENIZERS) if (path := directory / name).exists()]


def facts_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in a data.json, lists as tuples."""
    facts = described["facts"]
    return {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}


def chunks(num_rows: int) -> Iterator[np.ndarray]:
    """The numbers of all rows, int64, CHUNK at a time."""
    return in_parts(np.arange(num_rows))


def in_parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers, CHUNK at a time."""
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


class Held(NamedTuple):
    """The numbers of the training rows that are trained on, and of those held out for validation; both in order."""

    trained: np.ndarray
    validation: np.ndarray

    @classmethod
    def out(cls, number: int, num_rows: int) -> "Held":
        """Hold out so many rows, chosen at random by a function of both numbers."""
        if number >= num_rows:
            raise BadInput(
                f"train.batches.validation: {number:,} of {num_rows:,} rows would leave none to train on; hold out fewer"
            )
        order = np.random.Generator(np.random.Philox(derived_seed("validation", number, num_rows)))
        rows = order.permutation(num_rows)
        return cls(np.sort(rows[number:]), np.sort(rows[:number]))

    def rows(self, split: str, num_rows: int) -> np.ndarray:
        """The row numbers of a split with so many rows, and of `validation`."""
        return {"train": self.trained, "validation": self.validation}.get(split, np.arange(num_rows))

    def batch(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """The row numbers of a training batch, int64 [batch_size]."""
        return self.trained[shuffled_rows(len(self.trained), seed, step, batch_size)]


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that is a pure function of `parts`."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def shuffled_rows(num_rows: int, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Row numbers, int64 [batch_size], of a step: epoch after epoch, each in an order of its own.

    The last batch of an epoch goes on into the next one, so every row is seen equally often.
    """
    wanted = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(wanted // num_rows):
        order = _order(num_rows, seed, int(epoch))
        here = wanted // num_rows == epoch
        rows[here] = order[wanted[here] % num_rows]
    return rows


@functools.lru_cache(8)  # a batch may need the epoch before, too; pairs have an order for each length
def _order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the rows in an epoch, int64 [num_rows]."""
    return np.random.Generator(np.random.Philox(derived_seed(seed, "epoch", epoch))).permutation(num_rows)


def read_array(path: Path) -> np.ndarray:
    """A memory-mapped .npy file; a missing or broken one is an error that names it."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadState(f"{path}: no such file; run the stage that makes it (genpipe plan names it)") from None
    except (ValueError, EOFError, OSError) as error:
        raise BadState(f"{path}: not a NumPy array ({error}); run the stage that makes it again") from None


def read_labels(path: Path, rows: int, num_classes: int) -> np.ndarray:
    """The labels of so many rows, whole numbers below `num_classes`."""
    labels = read_array(path)
    if labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise BadState(
            f"{path}: {labels.dtype} {list(labels.shape)}, and {rows:,} examples have as many whole numbers; {AGAIN}"
        )
    if rows and not 0 <= labels.min() <= labels.max() < num_classes:
        raise BadState(
            f"{path}: labels from {labels.min()} to {labels.max()}, and the classes are 0 to {num_classes - 1}; {AGAIN}"
        )
    return labels
