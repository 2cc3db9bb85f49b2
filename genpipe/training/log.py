"""The metrics of every step, a line of JSON each, and the marks by which a checkpoint knows its part of them."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genpipe.errors import BadInput

NAME = "metrics.jsonl"


class Mark(NamedTuple):
    """Where a log stood: its size in bytes, and the hash of them."""

    size: int
    sha256: str


START = Mark(0, hashlib.sha256().hexdigest())


class Log:
    """A log that is being written."""

    def __init__(self, path: Path, mark: Mark) -> None:
        """Go on after `mark`; what an interrupted training wrote beyond it is cut off."""
        path.touch()
        self._path = path
        self._hash = hashlib.sha256(start_of(path, mark))
        self._size = mark.size
        os.truncate(path, mark.size)

    def append(self, row: Mapping[str, float]) -> None:
        """Add the metrics of a step."""
        line = (json.dumps(row) + "\n").encode()
        with self._path.open("ab") as file:
            file.write(line)
        self._hash.update(line)
        self._size += len(line)

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        return Mark(self._size, self._hash.hexdigest())


def start_of(path: Path, mark: Mark) -> bytes:
    """The bytes before a mark; others than were written there are an error."""
    found = b""
    if path.exists():
        with path.open("rb") as file:
            found = file.read(mark.size)
    if hashlib.sha256(found).hexdigest() != mark.sha256:
        raise BadInput(
            f"{path}: the log is damaged: its first {mark.size} bytes are not those that were written"
        )
    return found


def rows_before(path: Path, mark: Mark) -> list[dict[str, Any]]:
    """The metrics of the steps before a mark."""
    return [json.loads(line) for line in start_of(path, mark).splitlines()]
