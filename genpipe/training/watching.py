"""Shows a training from outside, by the log that its first process writes."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

from genpipe.progress import Progress

POLL_S = 0.5


@contextlib.contextmanager
def watched(name: str, log: Path, steps: int) -> Iterator[None]:
    """While the block runs, its progress is told."""
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(name, log, steps, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(name: str, log: Path, steps: int, stop: threading.Event) -> None:
    with Progress(name, steps, "steps") as progress:
        ending = False
        while not ending:
            ending = stop.wait(POLL_S)
            metrics = _last(log)
            if metrics:
                note = next((f"{key} {value:.4g}" for key, value in metrics.items() if key != "step"), "")
                progress.reach(metrics["step"], note)


def _last(log: Path) -> dict[str, float] | None:
    """The last whole line of a log that somebody is writing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().split(b"\n")[:-1]
        return json.loads(lines[-1]) if lines else None
    except (FileNotFoundError, json.JSONDecodeError):
        return None
