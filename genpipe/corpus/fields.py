"""The fields of records that are not cut into tokens as a whole: lists of texts, and marks of texts and tokens."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from genpipe.errors import BadInput


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each object of a .jsonl file with the number of its line; blank lines are passed over."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, orjson.loads(line)


def write_items(path: Path, field: str, out: Path, may_be_empty: bool = False) -> np.ndarray:
    """Write each text of a field as a record of its own; where those of each record begin. A text alone is a list of one.

    A list that is empty where it may be is written as one empty text: what a question without an answer is answered with.
    """
    sizes = [0]
    with out.open("w", encoding="utf-8", newline="\n") as file:
        for number, record in records(path):
            value = _value(path, number, record, field)
            texts = [value] if isinstance(value, str) else value
            if texts == [] and may_be_empty:
                texts = [""]
            if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
                raise BadInput(
                    f"{path}: line {number}: the field {field!r} is not a list of texts; fix the line"
                )
            file.writelines(json.dumps({field: text}, ensure_ascii=False) + "\n" for text in texts)
            sizes.append(len(texts))
    return np.cumsum(sizes).astype("<i8")


# of at most 18 digits: Python refuses to read a number of thousands of them
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)


class Marks:
    """A field with a mark for each record (a group, a label) or a list with one for each token (tags)."""

    def __init__(self, paths: Mapping[str, Path], field: str, per_token: bool) -> None:
        self.paths, self.field, self.per_token = paths, field, per_token
        self.values = {split: list(self._read(path)) for split, path in paths.items()}
        known = {split: {v for row in rows for v in row} for split, rows in self.values.items()}
        first = next(split for split in ("train", *paths) if split in paths)
        self.num_known = len(known[first])
        later = set().union(*known.values()) - known[first]
        self.names = [*in_order(known[first]), *in_order(later)]

    def numbers(self, split: str) -> np.ndarray:
        """The number of each mark of a split, int64 [marks]; those of the training split come first."""
        places = {name: number for number, name in enumerate(self.names)}
        return np.array([places[mark] for row in self.values[split] for mark in row], "<i8")

    def require_trained(self) -> None:
        """Raise BadInput where a split has a mark that the training split does not have."""
        unknown = self.names[self.num_known :]
        if unknown:
            raise BadInput(
                f"{', '.join(map(str, self.paths.values()))}: {self.field!r} is {unknown[0]!r} only outside of training; "
                "add examples of it to train, or take it out"
            )

    def require_lengths(self, split: str, lengths: np.ndarray) -> None:
        """Raise BadInput where a text has another number of tokens than of tags."""
        for row, (marks, length) in enumerate(zip(self.values[split], lengths.tolist(), strict=True)):
            if len(marks) != length:
                raise BadInput(
                    f"{self.paths[split]}: record {row + 1} has {length} tokens and {len(marks)} in {self.field!r}; "
                    "give one tag for each token (with the tokenizer char: for each character but white space)"
                )

    def _read(self, path: Path) -> Iterator[list[str]]:
        for number, record in records(path):
            value = _value(path, number, record, self.field)
            marks = value if self.per_token and isinstance(value, list) else [value]
            if self.per_token != isinstance(value, list) or not all(isinstance(m, str | int) for m in marks):
                shape = "a list of names, one for each token" if self.per_token else "one name or number"
                raise BadInput(
                    f"{path}: line {number}: the field {self.field!r} is not {shape}; fix the line"
                )
            yield [str(mark) for mark in marks]


def _value(path: Path, number: int, record: Any, field: str) -> Any:
    if not isinstance(record, dict) or field not in record:
        has = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
        raise BadInput(f"{path}: line {number}: no field {field!r}; the line has: {has}")
    return record[field]


def in_order(marks: set[str]) -> list[str]:
    """Marks in a fixed order: by value where all are whole numbers, else as texts."""
    return sorted(marks, key=int) if all(WHOLE.fullmatch(mark) for mark in marks) else sorted(marks)
