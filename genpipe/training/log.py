"""The metrics of every step, a line of JSON each: streamed to whoever watches, and kept whole for the checkpoints."""

import json
import time
from collections.abc import Mapping
from typing import Any

from genpipe.training.runs import RunFiles

SECONDS = 0.2  # between two writes


class Log:
    """A log that is being written."""

    def __init__(self, run: RunFiles, earlier: bytes) -> None:
        """Go on after the lines of a checkpoint; what an interrupted training streamed beyond them is dropped."""
        self._run = run
        self._lines = bytearray(earlier)
        self._told = len(earlier)
        self._time = time.monotonic()
        run.begin(earlier)

    def append(self, row: Mapping[str, float]) -> None:
        """Add the metrics of a step; they are told now and then."""
        self._lines += (json.dumps(row) + "\n").encode()
        if time.monotonic() - self._time >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Tell all that was not told yet."""
        if len(self._lines) > self._told:
            self._run.append(bytes(self._lines[self._told :]))
        self._told, self._time = len(self._lines), time.monotonic()

    @property
    def lines(self) -> bytes:
        """All of it."""
        return bytes(self._lines)


def rows_of(lines: list[bytes]) -> list[dict[str, Any]]:
    """The metrics of each step."""
    return [json.loads(line) for line in lines]
