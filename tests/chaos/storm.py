"""Sixteen stages that start at once and end at once: DVC loses none of them, because it is told to wait for its lock.

While they are at it, somebody else holds DVC's lock for longer than DVC waits by itself (3 s), so that on any machine
the control, the same stages without `--wait-for-lock`, does lose some.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from genpipe.graph import Needs, Stage
from tasks.reproduce import Processes, StageFailed, reproduce

NAMES = [f"stage-{number:02}" for number in range(16)]
HOLD = 5.0  # seconds that somebody else has the lock
STAGE = """\
import pathlib, sys, time
name, text = sys.argv[1], pathlib.Path("round.txt").read_text()
mark = pathlib.Path("began", text, name)
mark.parent.mkdir(parents=True, exist_ok=True)
mark.touch()
deadline = time.monotonic() + 12
while len(list(mark.parent.iterdir())) < int(sys.argv[2]) and time.monotonic() < deadline:
    time.sleep(0.01)  # until all have begun: they end at once
pathlib.Path(name).write_text(f"{name} {text}")
"""

Run = Callable[[Path, str], None]  # of one stage, by its name


def main(rounds: int) -> int:
    """Print a row a round, and the control; 0 when nothing is lost by us and something by the control."""
    print("| round | stages | lost | seconds |\n|---:|---:|---|---:|", flush=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="storm-") as directory:
        root = Path(directory)
        make(root)
        for number in range(rounds):
            started = time.monotonic()
            lost = storm(root, str(number), as_the_flow_does)
            failed |= bool(lost)
            told = ", ".join(lost) or "none"
            print(f"| {number} | {len(NAMES)} | {told} | {time.monotonic() - started:.1f} |", flush=True)
        lost = storm(root, "control", without_waiting)
    print(f"without --wait-for-lock: {len(lost)} of {len(NAMES)} lost", flush=True)
    return int(failed or not lost)


def make(root: Path) -> None:
    """A DVC repository with independent stages."""
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True)
    (root / "stage.py").write_text(STAGE)
    stages = {
        name: {
            "cmd": f"{sys.executable} stage.py {name} {len(NAMES)}",
            "deps": ["round.txt"],
            "outs": [name],
        }
        for name in NAMES
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def storm(root: Path, text: str, run: Run) -> list[str]:
    """Run all stages at once; the ones that are lost: not in dvc.lock, or with another output than they write."""
    (root / "round.txt").write_text(text)
    holder = threading.Timer(1.0, hold_lock, (root, HOLD))
    holder.start()
    with ThreadPoolExecutor(len(NAMES)) as threads:
        list(threads.map(lambda name: run(root, name), NAMES))
    holder.join()
    return [name for name in NAMES if not _is_kept(root, name, f"{name} {text}")]


def hold_lock(root: Path, seconds: float) -> None:
    """Have DVC's lock as another DVC would."""
    with (root / ".dvc/tmp/lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        time.sleep(seconds)


def as_the_flow_does(root: Path, name: str) -> None:
    """Run a stage as the flow's tasks do."""
    try:
        reproduce(root, Stage(name, (), (), Needs()), Processes(), lambda line: None)
    except StageFailed as error:
        print(error, file=sys.stderr)


def without_waiting(root: Path, name: str) -> None:
    """The control: DVC gives up its lock after 3 s."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", name]
    subprocess.run(command, cwd=root, env={**os.environ, "DVC_NO_ANALYTICS": "1"}, capture_output=True)


def _is_kept(root: Path, name: str, content: str) -> bool:
    path, lock = root / name, root / "dvc.lock"
    known = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
    outs = known.get(name, {}).get("outs", [{}])
    is_written = path.exists() and path.read_text() == content
    return is_written and outs[0].get("md5") == hashlib.md5(content.encode()).hexdigest()
