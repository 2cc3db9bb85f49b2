"""How a victim is killed: in a run by hand, or in a deployed one; and what is said of what follows."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos import pipeline
from tests.chaos.arena import SETTLED, UNDISTURBED, Arena, Draw, Strike
from tests.chaos.deployment import Services
from tests.chaos.long_run import outlast
from tests.chaos.processes import Family, kill, succeeded, words_of
from tests.chaos.victims import VICTIMS, Victim, stages_of

TRIES = 4  # to hit the victim before the run ends
SPARED = "the run ended before its victim could be killed"

Played = tuple[Strike | None, float, list[str]]


def play_direct(arena: Arena, drawn: Draw, family: Family) -> Played:
    """The victim dies in a run by hand."""
    strike, complaints = _disturb(arena, drawn, family, arena.command, arena.environment)
    complaints += _left(family, "after the kill")
    recovery, more = _rerun(arena, drawn, family, arena.command, arena.environment)
    return strike, recovery, complaints + more + _left(family, "after the second run")


def play_deployed(arena: Arena, drawn: Draw, family: Family) -> Played:
    """The victim dies in a run on a worker; server and worker are started again."""
    services = Services(family, arena.root, arena.environment, arena.log(f"services-{drawn.number}"))
    complaints = services.start()
    if VICTIMS[drawn.victim].in_long_run:
        strike, more = outlast(arena, drawn, family, services)
    else:
        strike, more = _disturb(arena, drawn, family, arena.deployed_command, services.environment)
        more += services.revive()
        services.settle()
    complaints += more + _left(family, "after the kill", services)
    recovery, more = _rerun(arena, drawn, family, arena.deployed_command, services.environment)
    complaints += more + services.stop()
    return strike, recovery, complaints + _left(family, "after the services were stopped")


def _disturb(
    arena: Arena, drawn: Draw, family: Family, command: Sequence[str], environment: Mapping[str, str]
) -> tuple[Strike | None, list[str]]:
    for attempt in range(TRIES):
        pipeline.forget(arena.root, drawn.stages, arena.state.lock, drawn.forgets_lock)
        process = family.start(command, arena.root, environment, arena.log(drawn.number))
        strike = _strike(arena, drawn, family, process, drawn.delay / 2**attempt)
        if strike:
            return strike, []
        if process.poll() is None:
            return None, [f"the run did not end within {UNDISTURBED} s, and its victim was not seen"]
    return None, [SPARED]


def _strike(
    arena: Arena, drawn: Draw, family: Family, run: "subprocess.Popen[bytes]", delay: float
) -> Strike | None:
    """Kill a victim `delay` seconds after the first is seen; None when the run ends before, or never."""
    victim, started, due = VICTIMS[drawn.victim], time.monotonic(), None
    while run.poll() is None and time.monotonic() < started + UNDISTURBED:
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
    complaints = succeeded(run, UNDISTURBED, "the second run")
    return time.monotonic() - started, [f"{complaint}: {last_line(log)}" for complaint in complaints]


def _left(family: Family, when: str, services: Services | None = None) -> list[str]:
    """Complaints about the processes that are left, which are then ended."""
    left = family.wait_until_gone(SETTLED, services.has if services else lambda _: False)
    complaints = [
        f"{when}: process {process.pid} is left: {' '.join(words_of(process))[:200]}" for process in left
    ]
    for process in left:
        kill(process)
    return complaints


def last_line(log: Path) -> str:
    """The last line that was printed, and where."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'nothing was said'} (log: {log})"
