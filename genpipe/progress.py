"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere; always on standard error."""

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS = 5.0  # between two lines


class Progress:
    """Tells how much of `total` is done: `NAME: 42 % (840 of 2,000 steps, loss 1.2, 9 s left)`."""

    def __init__(self, name: str, total: float, unit: str) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0.0
        self.note = ""
        self.began: tuple[float, float] | None = None  # when the first progress was seen, and how far it was
        self.reported = time.monotonic()
        self.bar = tqdm(desc=name, total=round(total), unit=unit) if sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        if self.bar is None:
            self._tell()  # at once: how much there is to do
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        elif kind is None:
            self._tell()

    def reach(self, done: float, note: str = "") -> None:
        """`done` of the total is done now; `note` says more."""
        self.done, self.note = done, note
        self.began = self.began or (time.monotonic(), done)
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(round(done) - self.bar.n)
        elif time.monotonic() - self.reported >= SECONDS:
            self._tell()

    def _tell(self) -> None:
        self.reported = time.monotonic()
        percent = int(100 * self.done / self.total + 1e-6) if self.total else 100  # a sum may end just below
        parts = [f"{self.done:,.0f} of {self.total:,.0f} {self.unit}", self.note, self._left()]
        tell(f"{self.name}: {percent} % ({', '.join(part for part in parts if part)})")

    def _left(self) -> str:
        if self.began is None or self.done <= self.began[1] or self.done >= self.total * (1 - 1e-9):
            return ""
        seconds = (self.reported - self.began[0]) / (self.done - self.began[1]) * (self.total - self.done)
        return f"{seconds:.0f} s left"


def shown(items: Sequence[Item], name: str, unit: str) -> Iterator[Item]:
    """The items one by one; reports how many are done."""
    with Progress(name, len(items), unit) as progress:
        for done, item in enumerate(items):
            progress.reach(done)
            yield item
        progress.reach(len(items))


def tell(line: str) -> None:
    """A line about work under way, on standard error at once."""
    print(line, file=sys.stderr, flush=True)
