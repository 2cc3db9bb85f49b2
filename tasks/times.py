"""How long stages took, by the number of their processes, and what follows: order, shares, a forecast. No Prefect here."""

import heapq
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from genpipe.files import write_json
from genpipe.graph import Stage

Seconds = Mapping[int, float]  # by the number of processes

GUESSES = {"train": 60.0}  # seconds of a stage of this group of which nothing is known
GUESS = 5.0  # of another


@dataclass(frozen=True)
class Times:
    """The recorded seconds of stages by the number of their processes."""

    recorded: Mapping[str, Seconds]

    def seconds(self, stage: str) -> float:
        """How long a stage takes on one process; where that is not recorded, the mean of its group, or a guess."""
        if stage in self.recorded:
            return _usual(self.recorded[stage])
        group = stage.partition("@")[0]
        alike = [_usual(of) for name, of in self.recorded.items() if name.partition("@")[0] == group]
        return sum(alike) / len(alike) if alike else GUESSES.get(group, GUESS)

    def pays(self, stage: str, processes: int) -> bool:
        """Whether that many processes are faster than one; where either is not recorded, it is worth a try."""
        recorded = self.recorded.get(stage, {})
        return 1 not in recorded or processes not in recorded or recorded[processes] < recorded[1]

    def chains(self, stages: Sequence[Stage]) -> dict[str, float]:
        """Seconds from the start of each stage to the end of the longest chain that waits for it; each after its upstream."""
        chains: dict[str, float] = {}
        for stage in reversed(stages):
            after = [chains[other.name] for other in stages if stage.name in other.upstream]
            chains[stage.name] = self.seconds(stage.name) + max(after, default=0.0)
        return chains

    def forecast(self, stages: Sequence[Stage], max_parallel: int) -> float:
        """Seconds that the stages take together, the longest chain first and `max_parallel` at once."""
        chains, waiting, now = self.chains(stages), list(stages), 0.0
        running: list[tuple[float, str]] = []
        while waiting or running:
            unfinished = {stage.name for stage in waiting} | {name for _, name in running}
            may_start = [stage for stage in waiting if not unfinished & set(stage.upstream)]
            if may_start and len(running) < max_parallel:
                first = max(may_start, key=lambda stage: chains[stage.name])
                waiting.remove(first)
                heapq.heappush(running, (now + self.seconds(first.name), first.name))
            else:
                now, _ = heapq.heappop(running)
        return now


def share(stage: Stage, limit: int, free: int, others: int, times: Times) -> int:
    """How many processes a stage gets: its part of the `free` cores, of which `others` stages could use some now too.

    At most `limit`, and one where more are known not to be faster.
    """
    processes = max(1, min(limit, free // (others + 1)))
    return processes if times.pays(stage.name, processes) else 1


def read_times(root: Path, stages: Iterable[Stage]) -> Times:
    """What is recorded in the project at `root`."""
    recorded = {stage.name: _read(root, stage.name) for stage in stages}
    return Times({name: seconds for name, seconds in recorded.items() if seconds})


def keep_time(root: Path, stage: str, processes: int, seconds: float) -> None:
    """Record how long a stage took on so many processes."""
    path = _path(root, stage)
    kept = {str(n): s for n, s in {**_read(root, stage), processes: round(seconds, 2)}.items()}
    # a full disk must not fail a stage that is done
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, kept)


def expectation(root: Path, stages: Sequence[Stage], max_parallel: int) -> str:
    """One line: how long these stages will take here, and what that rests on."""
    times = read_times(root, stages)
    guessed = len(stages) - len(times.recorded)
    rest = f"; guessed for {guessed} of them, which have not run here before" if guessed else ""
    minutes = times.forecast(stages, max_parallel) / 60
    return f"that takes about {minutes:.1f} min with {max_parallel} stages at once{rest}"


def _usual(seconds: Seconds) -> float:
    return seconds.get(1, min(seconds.values()))


def _read(root: Path, stage: str) -> dict[int, float]:
    try:
        record = json.loads(_path(root, stage).read_text(encoding="utf-8"))
        return {int(processes): float(seconds) for processes, seconds in record.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        # a damaged record is as good as none
        return {}


def _path(root: Path, stage: str) -> Path:
    return root / ".genpipe" / "times" / f"{stage.replace(os.sep, '_')}.json"
