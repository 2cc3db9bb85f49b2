"""Let DVC run one stage in its own group of processes, keep its log, and say what became of it. No Prefect here."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from genpipe.graph import Stage
from tasks import guard

PROGRESS = re.compile(r"\s*(?P<name>.*\S): +(?P<percent>\d+(?:\.\d+)?) ?% \((?P<rest>.*)\)\s*")
HOUSEKEEPING = re.compile(  # DVC's own lines; only the log has them
    r"Running stage |> |(Updating|Generating) lock file |To track the changes|\s+git add|To enable auto staging"
    r"|\s+dvc config|Use `dvc push`|Stage '.*' (didn't change|is cached)|Verifying data|Checking out"
    r"|ERROR: failed to reproduce|Data and pipelines are up to date"
)
BAD_INPUT = 2  # exit status of a stage whose input is at fault

Outcome = Literal["ran", "restored", "skipped"]


@dataclass(frozen=True)
class StageRun:
    """What became of a stage: it ran, its outputs came from the cache, or nothing had changed for it."""

    stage: str
    outcome: Outcome
    seconds: float


class StageFailed(Exception):
    """A stage did not end well: one line with its last word and where its log is."""

    def __init__(self, stage: str, reason: str, log: Path, is_final: bool):
        super().__init__(f"{stage} failed: {reason} (log: {log})")
        self.is_final = is_final  # another attempt cannot end otherwise


class Processes:
    """The stages that run now, so that whoever ends the flow ends them too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guards: set[subprocess.Popen[str]] = set()
        self.ending = False

    def add(self, process: subprocess.Popen[str]) -> None:
        """Remember a guard; it is ended at once if all are being ended."""
        with self._lock:
            self._guards.add(process)
            if self.ending:
                process.terminate()

    def remove(self, process: subprocess.Popen[str]) -> None:
        """Forget a guard that has ended."""
        with self._lock:
            self._guards.discard(process)

    def end_all(self) -> None:
        """End every stage that runs or is still to start; returns before they have ended."""
        with self._lock:
            self.ending = True
            for process in self._guards:
                process.terminate()


def reproduce(root: Path, stage: Stage, processes: Processes, show: Callable[[str], None]) -> StageRun:
    """Run `stage` or raise StageFailed; lines go to `show` and, all of them, to .genpipe/logs/STAGE.log."""
    log = root / ".genpipe" / "logs" / f"{stage.name.replace(os.sep, '_')}.log"
    started = time.monotonic()
    process = _start(root, stage)
    processes.add(process)
    try:
        lines = _copy(process.stdout or (), log, show)
    finally:
        _close(process.stdin)  # the guard then ends the whole group, if it still runs
        status = process.wait()
        _close(process.stdout)
        processes.remove(process)
    if status != 0:
        raise _failure(stage.name, lines, log.relative_to(root), status, processes.ending)
    return StageRun(stage.name, _outcome(lines), time.monotonic() - started)


def _start(root: Path, stage: Stage) -> subprocess.Popen[str]:
    # --single-item: two repros that share an upstream block each other; --wait-for-lock: else DVC can lose a finished stage
    dvc = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage.name]
    timeout = "-" if stage.needs.timeout is None else str(stage.needs.timeout)
    return subprocess.Popen(
        [sys.executable, "-I", guard.__file__, timeout, *dvc],
        cwd=root,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C on the terminal reaches the flow alone
    )


def _environment() -> dict[str, str]:
    here = str(Path(sys.executable).parent)  # where `genpipe` is, though nobody activated the environment
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}


def _copy(output: Iterable[str], log: Path, show: Callable[[str], None]) -> list[str]:
    """Write each line to the log as it comes and show it; the last 200 that are not empty."""
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with log.open("w", encoding="utf-8") as file:
        for line in output:
            file.write(line)
            file.flush()
            if line.strip():
                lines = [*lines[-199:], line.rstrip()]
                show(lines[-1])
    return lines


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        pipe.close()


def _outcome(lines: list[str]) -> Outcome:
    if any(re.match(r"Stage '.*' is cached - skipping run", line) for line in lines):
        return "restored"
    return "skipped" if any(re.match(r"Stage '.*' didn't change", line) for line in lines) else "ran"


def _failure(stage: str, lines: list[str], log: Path, status: int, ending: bool) -> StageFailed:
    if ending:
        return StageFailed(stage, "it was ended", log, is_final=True)
    told = [line for line in lines if not HOUSEKEEPING.match(line) and not PROGRESS.fullmatch(line)]
    exited = re.search(r"exited with (-?\d+)$", lines[-1]) if lines else None
    reason = (told or lines or [f"exit status {status}"])[-1].strip()
    return StageFailed(stage, reason, log, is_final=exited is not None and int(exited[1]) == BAD_INPUT)
