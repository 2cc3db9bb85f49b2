"""Documents as JSON Lines: in one file, or in one to train and one to test."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from genpipe.errors import BadInput
from genpipe.sources.jsonl import write_jsonl
from genpipe.sources.split import content_order, digest, split_by_group

Record = dict[str, Any]
WHOLE = "documents"  # the only split where none is kept for testing


def write_documents(
    directory: Path,
    records: Callable[[], Iterator[Record]],
    test_share: float | None,
    keys: Callable[[Record], Iterable[Hashable]],
) -> dict[str, int]:
    """Write documents.jsonl, or train.jsonl and test.jsonl where there is a share; rows by split.

    Documents that share a key, also by way of others, are on one side. `records` is called twice where they are split.
    """
    if test_share is None:
        return {WHOLE: _write(directory, WHOLE, records())}
    own = [tuple(keys(record)) for record in records()]
    tested = split_by_group([digest(repr(key).encode()) for key in own], test_share, own)
    sides = {"train": [not test for test in tested], "test": tested}
    counts = {split: _write(directory, split, compress(records(), side)) for split, side in sides.items()}
    if not all(counts.values()):
        raise BadInput(
            f"{counts['train']} documents to train and {counts['test']} to test; add different documents, "
            "or take test_share out"
        )
    return counts


def write_sides(
    directory: Path, records: Sequence[Record], contents: Sequence[bytes], tested: Sequence[bool]
) -> dict[str, int]:
    """Write train.jsonl and test.jsonl in the order of `contents`, so any stretch of them is a fair sample; rows by split.

    Raises BadInput where a side would be empty.
    """
    order = content_order(contents)
    sides = {
        split: [records[i] for i in order if tested[i] == (split == "test")] for split in ("train", "test")
    }
    if not all(sides.values()):
        raise BadInput(
            f"{len(sides['train'])} records to train and {len(sides['test'])} to test; add different ones to the source, "
            "or take another test_share"
        )
    return {split: _write(directory, split, side) for split, side in sides.items()}


def file_counts(counts: dict[str, int]) -> dict[str, int]:
    """The same by file."""
    return {f"{split}.jsonl": number for split, number in counts.items()}


def _write(directory: Path, split: str, records: Iterable[Record]) -> int:
    with (directory / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        return write_jsonl(file, records)
