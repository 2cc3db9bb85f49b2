"""Let DVC run one stage in its own group of processes, keep its log, and say what became of it. No Prefect here."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from genpipe import lease
from genpipe.dvc_command import environment as dvc_environment
from genpipe.errors import EXIT_STATUS, BadInput, Busy, Unavailable, WorkFailed
from genpipe.graph import Stage
from genpipe.redaction import masker
from tasks import attempts, guard
from tasks.warm import LOST, UNBUFFERED, Warm, WarmGuard
from tasks.watchdog import Watchdog, blockers

PROGRESS = re.compile(r"\s*(?P<name>.*\S): +(?P<percent>\d+(?:\.\d+)?) ?% \((?P<rest>.*)\)\s*")
HOUSEKEEPING = re.compile(  # DVC's own lines; only the log has them
    r"Running stage |> |(Updating|Generating) lock file |To track the changes|\s+git add|To enable auto staging"
    r"|\s+dvc config|Use `dvc push`|Stage '.*' (didn't change|is cached)|Verifying data|Checking out"
    r"|ERROR: failed to reproduce|Data and pipelines are up to date"
)
DVC_FAILED = re.compile(r"ERROR: failed to reproduce '.*?': (?!failed to run: )(?P<why>.*)")  # by itself
BUSY = re.compile(r".*' is busy, it is being blocked by:")
ATOMIC_DVC = Path(__file__).with_name("atomic_dvc.py")  # importing it takes a second
BUSY_PATIENCE = 120.0  # seconds to wait for who works on the same files
BUSY_DELAY = 2.0  # seconds between two looks

Outcome = Literal["ran", "restored", "skipped"]
Fault = Literal["died", "bad input", "ended", "busy", "stuck", "refused", "unavailable"]
# By the exit status of a stage; any other one is a death.
FAULTS: dict[int, Fault] = {
    EXIT_STATUS[BadInput]: "bad input",
    EXIT_STATUS[Unavailable]: "unavailable",
    EXIT_STATUS[Busy]: "busy",
}


@dataclass(frozen=True)
class StageRun:
    """What became of a stage: it ran, its outputs came from the cache, or nothing had changed for it."""

    stage: str
    outcome: Outcome
    seconds: float


class StageFailed(WorkFailed):
    """A stage did not end well: one line with its last word and where its log is."""

    def __init__(self, stage: str, reason: str, log: Path, fault: Fault):
        super().__init__(f"{stage} failed: {reason} (log: {log})")
        self.fault = fault

    @property
    def is_final(self) -> bool:
        """Whether another attempt cannot end otherwise."""
        return self.fault not in ("died", "unavailable")


Guard = subprocess.Popen[str] | WarmGuard


class Processes:
    """The stages that run now, so that whoever ends the flow ends them too; and the warm process that forks them, if any."""

    def __init__(self, warm: Warm | None = None) -> None:
        self.warm = warm
        self._lock = threading.Lock()
        self._guards: set[Guard] = set()
        self._ending = threading.Event()

    @property
    def ending(self) -> bool:
        """Whether all are being ended."""
        return self._ending.is_set()

    def add(self, process: Guard) -> None:
        """Remember a guard; it is ended at once if all are being ended."""
        with self._lock:
            self._guards.add(process)
            if self.ending:
                process.terminate()

    def remove(self, process: Guard) -> None:
        """Forget a guard that has ended."""
        with self._lock:
            self._guards.discard(process)

    def end_all(self) -> None:
        """End every stage that runs or is still to start; returns before they have ended."""
        with self._lock:
            self._ending.set()
            for process in self._guards:
                process.terminate()

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until all are being ended."""
        self._ending.wait(seconds)


def reproduce(
    root: Path,
    stage: Stage,
    processes: Processes,
    show: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> StageRun:
    """Run `stage` or raise StageFailed; lines go to `show` and, all of them, to the log, secrets masked in both.

    `environment` is added to that of this process. A stage that died too often with these inputs is not run again.
    """
    _refuse_hopeless(root, stage)
    lease.remove_broken_rwlock(root)
    give_up = time.monotonic() + BUSY_PATIENCE
    while True:
        try:
            run = _attempt(root, stage, processes, show, environment or {})
        except StageFailed as failure:
            if failure.fault == "died":
                attempts.died(root, stage)
            if failure.fault != "busy" or time.monotonic() > give_up:
                raise
            processes.pause(BUSY_DELAY)
        else:
            attempts.forget(root, stage.name)
            return run


def log_of(stage: str) -> Path:
    """Where the lines of a stage are kept, below the project."""
    return Path(".genpipe", "logs", f"{stage.replace(os.sep, '_')}.log")


def _refuse_hopeless(root: Path, stage: Stage) -> None:
    so_far = attempts.deaths(root, stage)
    if so_far >= stage.needs.attempts:
        remedy = "fix what its log reports, or try again with --retry-failed"
        reason = f"it died {so_far} times with the very same inputs and is not tried again; {remedy}"
        raise StageFailed(stage.name, reason, log_of(stage.name), "refused")


def _attempt(
    root: Path,
    stage: Stage,
    processes: Processes,
    show: Callable[[str], None],
    environment: Mapping[str, str],
) -> StageRun:
    started = time.monotonic()
    warm = processes.warm
    process = _start(root, stage, environment, warm)
    processes.add(process)
    watchdog = Watchdog(root, process)
    try:
        with watchdog.watching():
            lines = _copy(process.stdout or (), root / log_of(stage.name), show, watchdog)
    finally:
        _close(process.stdin)  # the guard then ends the whole group, if it still runs
        status = process.wait()
        _close(process.stdout)
        processes.remove(process)
    is_lost = isinstance(process, WarmGuard) and (status == LOST or not (warm and warm.is_alive()))
    if status != 0 and is_lost and not processes.ending and watchdog.verdict is None:
        # the fork ended with its guard or with the warm process, which is no fault of the stage
        processes.warm = None
        return _attempt(root, stage, processes, show, environment)
    if status != 0:
        reason, fault = _failure(lines, status, processes.ending, watchdog.verdict)
        raise StageFailed(stage.name, reason, log_of(stage.name), fault)
    return StageRun(stage.name, _outcome(lines), time.monotonic() - started)


def _start(root: Path, stage: Stage, environment: Mapping[str, str], warm: Warm | None) -> Guard:
    # --single-item: two repros that share an upstream block each other; --wait-for-lock: else DVC can lose a finished stage
    words = ["--wait-for-lock", "repro", "--single-item", stage.name]
    environment = {**dvc_environment(root), **UNBUFFERED, **environment}
    if warm and warm.root == root and (forked := warm.start(words, stage.needs.timeout, environment)):
        return forked
    return subprocess.Popen(
        guard.guarded([sys.executable, "-P", str(ATOMIC_DVC), *words], stage.needs.timeout),
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C on the terminal reaches the flow alone
    )


def _copy(output: Iterable[str], log: Path, show: Callable[[str], None], watchdog: Watchdog) -> list[str]:
    """Write each line to the log as it comes and show it; the last 200 that are not empty."""
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    mask = masker()
    with log.open("w", encoding="utf-8") as file:
        for line in map(mask, output):
            watchdog.heard()
            file.write(line)
            file.flush()
            if line.strip():
                lines = [*lines[-199:], line.rstrip()]
                show(lines[-1])
    return lines


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        with suppress(BrokenPipeError):
            pipe.close()


def _outcome(lines: list[str]) -> Outcome:
    if any(re.match(r"Stage '.*' is cached - skipping run", line) for line in lines):
        return "restored"
    return "skipped" if any(re.match(r"Stage '.*' didn't change", line) for line in lines) else "ran"


def _failure(lines: list[str], status: int, is_ending: bool, verdict: str | None) -> tuple[str, Fault]:
    """Why a stage failed, and whose fault that is."""
    if is_ending:
        return "it was ended", "ended"
    if verdict is not None:
        return verdict, "stuck"
    if any(BUSY.match(line) for line in lines):
        return f"its files are being worked on by {blockers(lines) or 'another DVC command'}", "busy"
    if lines and (failed := DVC_FAILED.fullmatch(lines[-1])):
        return failed["why"], "died"
    telling = [line for line in lines if not HOUSEKEEPING.match(line) and not PROGRESS.fullmatch(line)]
    exited = re.search(r"exited with (-?\d+)$", lines[-1]) if lines else None
    reason = (telling or lines or [f"exit status {status}"])[-1].strip()
    return reason, FAULTS.get(int(exited[1]), "died") if exited else "died"
