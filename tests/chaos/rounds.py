"""A round: work is made undone, a victim dies while it is done, the same command runs again, all is as it was."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos import pipeline
from tests.chaos.deployment import RUN, Services
from tests.chaos.processes import Family, kill, words_of
from tests.chaos.victims import VICTIMS, Victim, stages_of

UNDISTURBED = 1200  # seconds a run may take
SETTLED = (
    180  # seconds in which what a kill has left must have ended; Prefect waits 120 for a server it started
)
TRIES = 4  # to hit the victim before the run ends


@dataclass(frozen=True)
class Draw:
    """What chance has chosen for a round."""

    number: int
    victim: str
    stages: tuple[str, ...]
    delay: float  # seconds from the first sight of a victim to its end
    which: float  # of those that live then, from 0 to 1
    forgets_lock: bool


@dataclass(frozen=True)
class Strike:
    """A kill: when, counted from the start of the run, and what was going on."""

    seconds: float
    interrupted: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a round."""

    draw: Draw
    strike: Strike | None
    recovery: float  # seconds of the second run
    complaints: tuple[str, ...]


@dataclass(frozen=True)
class Arena:
    """The project, what an undisturbed run has made of it, and how it is run."""

    root: Path
    scratch: Path
    targets: tuple[str, ...]
    state: pipeline.State

    @property
    def command(self) -> list[str]:
        """The run, by hand."""
        return [sys.executable, "-m", "flows.retrain", *self.targets]

    @property
    def deployed_command(self) -> list[str]:
        """The run, on the worker."""
        return [*RUN, "--param", f"targets={json.dumps(self.targets or None)}"]

    @property
    def environment(self) -> dict[str, str]:
        """Everything that a run writes outside the project is below the scratch directory."""
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        own = {
            "PYTHONPATH": str(self.root),
            "PREFECT_HOME": str(self.scratch / "prefect"),
            "TMPDIR": str(self.scratch / "t"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "30",
            "DO_NOT_TRACK": "1",
            "DVC_NO_ANALYTICS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        return inherited | own

    def log(self, name: object) -> Path:
        """Where the processes of a round print to."""
        return self.scratch / f"{name}.log"


_FOREIGN = ("PREFECT_API_URL", "RAY_ADDRESS")  # a server or a cluster of somebody else is not attacked


def draw(seed: int, number: int, stages: Sequence[str], victims: Sequence[str]) -> Draw:
    """The draw of a round; the victims take turns, in an order of chance."""
    turn, place = divmod(number, len(victims))
    order = random.Random(f"{seed} turn {turn}").sample(victims, len(victims))
    rng = random.Random(f"{seed} round {number}")
    victim = VICTIMS[order[place]]
    return Draw(
        number,
        order[place],
        tuple(pipeline.choose(rng, stages, victim.uses_ray)),
        rng.uniform(0, victim.within),
        rng.random(),
        rng.random() < 0.5,
    )


def prepare(scratch: Path, targets: Sequence[str]) -> Arena:
    """Make the project and run it undisturbed."""
    root = scratch / "project"
    for directory in (root, scratch / "t"):
        directory.mkdir()
    pipeline.make(root)
    arena = Arena(root, scratch, tuple(targets), pipeline.State("", frozenset()))
    with _family() as family:
        status = family.start(arena.command, root, arena.environment, arena.log("undisturbed")).wait(
            UNDISTURBED
        )
        left = family.wait_until_gone(SETTLED)
    if status or left:
        raise RuntimeError(
            f"undisturbed run: status {status}, left {left}; {_last_line(arena.log('undisturbed'))}"
        )
    shutil.copytree(root, scratch / "undisturbed", symlinks=True)
    return replace(arena, state=pipeline.state_of(root))


@contextlib.contextmanager
def _family() -> Iterator[Family]:
    family = Family(uuid.uuid4().hex)
    with family.watched():
        yield family


def play(arena: Arena, drawn: Draw) -> Outcome:
    """Play a round."""
    shutil.rmtree(arena.scratch / "t")  # logs of Ray
    (arena.scratch / "t").mkdir()
    with _family() as family:
        play_it = _play_deployed if VICTIMS[drawn.victim].is_deployed else _play_direct
        strike, recovery, complaints = play_it(arena, drawn, family)
    complaints += pipeline.differences(arena.root, arena.targets, arena.state, drawn.forgets_lock)
    complaints += [f"left behind: $TMPDIR/{name}" for name in sorted(_temporary(arena.scratch / "t"))]
    if complaints:  # what is wrong stays to be looked at, and is not held against the next round
        arena.root.rename(arena.scratch / f"failed-{drawn.number}")
        shutil.copytree(arena.scratch / "undisturbed", arena.root, symlinks=True)
    return Outcome(drawn, strike, recovery, tuple(complaints))


def _temporary(directory: Path) -> set[str]:
    """Files there; Ray leaves its logs, torch its settings, a killed Prefect worker what it told its supervisor."""
    names = {path.relative_to(directory) for path in directory.rglob("*") if not path.is_dir()}
    theirs = ("ray", "torchinductor", "prefect-workspace-attempt")
    return {str(name) for name in names if not name.parts[0].startswith(theirs)}


_Played = tuple[Strike | None, float, list[str]]


def _play_direct(arena: Arena, drawn: Draw, family: Family) -> _Played:
    strike = _disturb(arena, drawn, family, arena.command, arena.environment)
    complaints = [] if strike else ["the run ended before its victim could be killed"]
    complaints += _told(family, SETTLED, "after the kill")
    recovery, more = _rerun(arena, drawn, family, arena.command, arena.environment)
    return strike, recovery, complaints + more + _told(family, SETTLED, "after the second run")


def _play_deployed(arena: Arena, drawn: Draw, family: Family) -> _Played:
    services = Services(family, arena.root, arena.environment, arena.log(f"services-{drawn.number}"))
    services.start()
    strike = _disturb(arena, drawn, family, arena.deployed_command, services.environment)
    complaints = [] if strike else ["the run ended before its victim could be killed"]
    services.revive()
    complaints += _told(family, SETTLED, "after the kill", services)
    recovery, more = _rerun(arena, drawn, family, arena.deployed_command, services.environment)
    services.stop()
    return strike, recovery, complaints + more + _told(family, SETTLED, "after the services were stopped")


def _disturb(
    arena: Arena, drawn: Draw, family: Family, command: Sequence[str], environment: Mapping[str, str]
) -> Strike | None:
    for attempt in range(TRIES):
        pipeline.forget(arena.root, drawn.stages, arena.state.lock, drawn.forgets_lock)
        process = family.start(command, arena.root, environment, arena.log(drawn.number))
        strike = _strike(arena, drawn, family, process, drawn.delay / 2**attempt)
        if strike:
            return strike
    return None


def _strike(
    arena: Arena, drawn: Draw, family: Family, run: "subprocess.Popen[bytes]", delay: float
) -> Strike | None:
    """Kill a victim `delay` seconds after the first is seen; None when the run ends before."""
    victim, started, due = VICTIMS[drawn.victim], time.monotonic(), None
    while run.poll() is None:
        commands = {process: words_of(process) for process in family.living()}
        found = [process for process, words in commands.items() if victim.is_it(words)]
        due = time.monotonic() + delay if found and due is None else due
        if found and due is not None and time.monotonic() >= due and _is_the_moment(victim, arena.root):
            for process in found if victim.all_of_them else [found[int(drawn.which * len(found))]]:
                kill(process)
            return Strike(time.monotonic() - started, tuple(stages_of(list(commands.values()))))
        time.sleep(0.02)
    return None


def _is_the_moment(victim: Victim, root: Path) -> bool:
    """Whether it may die now, or within a fifth of a second when it waits for its moment."""
    deadline = time.monotonic() + 0.2
    while not (is_it := victim.moment is None or victim.moment(root)) and time.monotonic() < deadline:
        time.sleep(0.001)
    return is_it


def _rerun(
    arena: Arena, drawn: Draw, family: Family, command: Sequence[str], environment: Mapping[str, str]
) -> tuple[float, list[str]]:
    """The same command again: the seconds it took, and complaints."""
    log, started = arena.log(f"{drawn.number}-again"), time.monotonic()
    run = family.start(command, arena.root, environment, log)
    try:
        status = run.wait(UNDISTURBED)
    except subprocess.TimeoutExpired:
        return time.monotonic() - started, [f"the second run did not end within {UNDISTURBED} s"]
    complaints = [f"the second run ended with {status}: {_last_line(log)}"] if status else []
    return time.monotonic() - started, complaints


def _told(family: Family, seconds: float, when: str, services: Services | None = None) -> list[str]:
    """Complaints about the processes that are left, which are then ended."""
    may_stay = services.has if services else lambda _: False
    left = family.wait_until_gone(seconds, may_stay)
    complaints = [
        f"{when}: process {process.pid} is left: {' '.join(words_of(process))[:200]}" for process in left
    ]
    for process in left:
        kill(process)
    return complaints


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'nothing was said'} (log: {log})"
