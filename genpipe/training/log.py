"""The metrics of every step, a line of JSON each: streamed to whoever watches, and stored in pieces.

A checkpoint stores the lines since the one before it, and the hash of all lines from the first on, so that what is written
does not grow with the steps, and a changed byte anywhere is found.
"""

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genpipe.errors import BadState
from genpipe.training.runs import STREAM, RunFiles

SECONDS = 0.2  # between two writes
PIECES = "log"  # below the storage of a run: metrics-START.jsonl, the lines of the steps after START


@dataclass(frozen=True)
class Lines:
    """The lines of the steps after `start`, and the SHA-256 of all lines from the first step on."""

    start: int
    text: bytes
    sha256: str

    @property
    def stop(self) -> int:
        """The step of the last line."""
        return self.start + self.text.count(b"\n")


class Log:
    """A log that is being written."""

    def __init__(self, run: RunFiles, earlier: bytes) -> None:
        """Go on after the lines of a checkpoint; what an interrupted training streamed beyond them is dropped."""
        self._run = run
        self._start = earlier.count(b"\n")
        self._new = bytearray()  # lines since the last checkpoint
        self._streamed = 0  # bytes of them
        self._hash = hashlib.sha256(earlier)
        self._time = time.monotonic()
        run.begin(earlier)

    def append(self, row: Mapping[str, float]) -> None:
        """Add the metrics of a step; they are streamed now and then."""
        line = (json.dumps(row) + "\n").encode()
        self._new += line
        self._hash.update(line)
        if time.monotonic() - self._time >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Stream all lines that were not streamed yet."""
        if len(self._new) > self._streamed:
            self._run.append(bytes(self._new[self._streamed :]))
        self._streamed, self._time = len(self._new), time.monotonic()

    def cut(self) -> Lines:
        """The lines since the last cut, for a checkpoint to store."""
        self.flush()
        lines = Lines(self._start, bytes(self._new), self._hash.hexdigest())
        self._start, self._new, self._streamed = lines.stop, bytearray(), 0
        return lines


def store(run: RunFiles, lines: Lines) -> None:
    """Write a piece; later ones are of checkpoints that could not be read, and go before it is there."""
    name = _name(lines.start)
    for later in _pieces(run):
        if later > name:
            run.remove(later)
    run.write(name, lines.text)


def stored(run: RunFiles, step: int, sha256: str) -> Lines:
    """All lines up to a step, out of the pieces, or of the stream where a piece is damaged; BadState where both are."""
    pieces = [name for name in _pieces(run) if name < _name(step)]
    if lines := _first(b"".join(map(run.read, pieces)), step, sha256):
        return lines
    if lines := _first(run.streamed(), step, sha256):
        print(f"genpipe: {run.place}/{PIECES} is damaged; the lines of {STREAM} are whole", file=sys.stderr)
        return lines
    raise BadState(
        f"{run.place}/{PIECES}: the log is damaged: its first {step} lines are not those of step {step}"
    )


def rows_of(lines: list[bytes]) -> list[dict[str, Any]]:
    """The metrics of each step."""
    return [json.loads(line) for line in lines]


def _name(start: int) -> str:
    """The file of a piece; names sort as steps do."""
    return f"{PIECES}/metrics-{start:08d}.jsonl"


def _pieces(run: RunFiles) -> list[str]:
    return [name for name in run.names(PIECES) if name.startswith(f"{PIECES}/metrics-")]


def _first(text: bytes, number: int, sha256: str) -> Lines | None:
    """The first `number` lines of a text, if they have this hash."""
    kept = b"".join(text.splitlines(keepends=True)[:number])
    lines = Lines(0, kept, hashlib.sha256(kept).hexdigest())
    return lines if lines.stop == number and lines.sha256 == sha256 else None
