"""Prefect's server dies in a deployed run that is longer than its lease, and is started again: the run goes on."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import psutil

from tests.chaos import pipeline
from tests.chaos.arena import UNDISTURBED, Arena, Draw, Strike
from tests.chaos.deployment import Services
from tests.chaos.processes import Family, kill, words_of
from tests.chaos.victims import VICTIMS, is_guard, stages_of

LEASE = 300.0  # seconds for which a run takes its place in the deployment's limit; of Prefect, and no setting
OVER = LEASE + 60  # what a server without that lease would do has happened by then
TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def outlast(arena: Arena, drawn: Draw, family: Family, services: Services) -> tuple[Strike | None, list[str]]:
    """Hold up a run for longer than its lease while the victim dies: it must complete, and at its first try."""
    pipeline.forget(arena.root, drawn.stages, arena.state.lock, drawn.forgets_lock)
    try:
        known = {run["id"] for run in services.runs()}
        complaints = services.call(*arena.words)
        held = _hold_up(family)
        if not held:
            return None, [*complaints, "no stage began in a deployed run"]
        began = time.monotonic()
        strike = _strike(drawn, family)
        complaints += services.revive()
        _wait(lambda: _have_ended(services.runs(), known), began + OVER)
        for guard in held:
            guard.resume()
        _wait(lambda: _have_ended(services.runs(), known), time.monotonic() + UNDISTURBED)
        return strike, complaints + _not_completed(services.runs(), known)
    except httpx.HTTPError as error:
        return None, [f"Prefect's server answered a question about its runs with {error!r}"]


def _hold_up(family: Family) -> list[psutil.Process]:
    """Stop those who wait for the end of a stage, so that no run ends; they do not know that time passes."""
    guards: list[psutil.Process] = []

    def found() -> bool:
        guards.extend(process for process in family.living() if is_guard(words_of(process)))
        return bool(guards)

    _wait(found, time.monotonic() + UNDISTURBED, 0.05)
    for guard in guards:
        guard.suspend()
    return guards


def _strike(drawn: Draw, family: Family) -> Strike:
    time.sleep(drawn.delay)
    commands = {process: words_of(process) for process in family.living()}
    for process, words in commands.items():
        if VICTIMS[drawn.victim].is_it(words):
            kill(process)
    return Strike(drawn.delay, tuple(stages_of(list(commands.values()))))


def _wait(happened: Callable[[], bool], deadline: float, pause: float = 1.0) -> None:
    while not happened() and time.monotonic() < deadline:
        time.sleep(pause)


def _have_ended(runs: list[dict[str, Any]], known: set[str]) -> bool:
    return all(run["state_type"] in TERMINAL for run in runs if run["id"] not in known)


def _not_completed(runs: list[dict[str, Any]], known: set[str]) -> list[str]:
    """Complaints: there is one new run, it was started once, and has completed."""
    new = [run for run in runs if run["id"] not in known]
    told = [(run["state_type"], run["run_count"], run["state"]["message"]) for run in new]
    if [(state, count) for state, count, _ in told] == [("COMPLETED", 1)]:
        return []
    return [
        "the run did not go on when Prefect's server was started again: "
        + "; ".join(f"{state} after {count} starts, {message}" for state, count, message in told)
    ]
