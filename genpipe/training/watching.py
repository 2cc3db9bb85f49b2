"""Shows a training from outside, by the stream of metrics that its first process writes."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.progress import Progress
from genpipe.training.runs import STREAM

POLL_S = 0.5

Row = Mapping[str, float]


@contextlib.contextmanager
def watched(name: str, directory: Path, steps: int, tensorboard: Path | None) -> Iterator[None]:
    """While the block runs, the progress of the run in `directory` is reported, and written for TensorBoard where asked."""
    stop = threading.Event()
    with _scalars(tensorboard and tensorboard / directory.name) as write:
        thread = threading.Thread(
            target=_follow, args=(name, directory / STREAM, steps, write, stop), daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


class Tail:
    """The rows of a stream, as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0

    def new_rows(self) -> list[Row]:
        """The whole lines since the last call; a stream that was cut goes on from where it ends now."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            self._place = file.seek(min(self._place, self._path.stat().st_size))
            whole, newline, _ = file.read().rpartition(b"\n")
        self._place += len(whole + newline)
        lines = whole.splitlines()  # a power cut may leave zeros
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


def _follow(name: str, path: Path, steps: int, write: Callable[[Row], None], stop: threading.Event) -> None:
    tail = Tail(path)
    with Progress(name, steps, "steps") as progress:
        _show(tail.new_rows(), progress)  # of an earlier try: not written again
        ending = False
        while not ending:
            ending = stop.wait(POLL_S)
            rows = tail.new_rows()
            _show(rows, progress)
            for row in rows:
                write(row)


def _show(rows: list[Row], progress: Progress) -> None:
    if rows:
        note = next((f"{key} {value:.4g}" for key, value in rows[-1].items() if key != "step"), "")
        progress.reach(rows[-1]["step"], note)


@contextlib.contextmanager
def _scalars(directory: Path | None) -> Iterator[Callable[[Row], None]]:
    """What writes a row as TensorBoard scalars to a directory, or nowhere."""
    if directory is None:
        yield lambda row: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise BadInput(
            "--tensorboard: the package tensorboard is not installed; pip install tensorboard, or leave the option out"
        ) from None
    with SummaryWriter(directory) as writer:

        def write(row: Row) -> None:
            for key, value in row.items():
                if key != "step":
                    writer.add_scalar(key.replace(".", "/"), value, int(row["step"]))

        yield write
