"""A short version of `make chaos`, and that its checks can fail."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.chaos import deployment
from tests.chaos.arena import Arena
from tests.chaos.pipeline import State, differences, forget, stages_in, state_of
from tests.chaos.processes import Family, succeeded
from tests.chaos.rounds import draw, play, prepare
from tests.chaos.victims import VICTIMS
from tests.repository import make_repository

DAEMON = """
import os, pathlib, sys, time
if os.fork() == 0:
    os.setsid()
    os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(86400)"], {})
while not pathlib.Path("seen").exists():
    time.sleep(0.05)
"""
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(86400)"


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    scratch = Path(tempfile.mkdtemp(prefix="ch-", dir="/tmp"))  # a Unix socket allows 107 bytes
    yield prepare(scratch, ["count"])
    shutil.rmtree(scratch)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.e2e
@pytest.mark.parametrize("victim", ["flow", "Ray worker", "own server"])
def test_after_a_kill_the_same_command_ends_where_an_undisturbed_run_ends(arena: Arena, victim: str) -> None:
    outcome = play(arena, draw(1, 0, ["count@couplets"], [victim]))
    assert outcome.strike is not None
    assert outcome.complaints == ()


def test_a_process_without_mark_session_and_parent_is_found(tmp_path: Path) -> None:
    family = Family("a mark")
    with family.watched():
        parent = family.start([sys.executable, "-c", DAEMON], tmp_path, {}, tmp_path / "log")
        wait_until(lambda: len(family.living()) == 2)
        (tmp_path / "seen").touch()
        parent.wait()
        left = family.wait_until_gone(0.5)
        assert [process.environ() for process in left] == [{}]
    assert not any(map(lives, left))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_a_service_that_does_not_end_is_a_complaint_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "STOPPED", 1)
    family, log = Family("a mark"), tmp_path / "log"
    services = deployment.Services(family, tmp_path, {}, log)
    with family.watched():
        for name, code in (("worker", STUBBORN), ("server", STUBBORN.replace("SIG_IGN", "SIG_DFL"))):
            services._running[name] = family.start([sys.executable, "-c", code], tmp_path, {}, log)
        wait_until(lambda: log.read_text() == "1\n1\n")
        worker = services._running["worker"].pid
        assert services.stop() == [f"Prefect's worker (process {worker}) did not end within 1 s"]
        assert family.living() == []


def test_a_command_that_does_not_end_well_is_a_complaint(tmp_path: Path) -> None:
    family = Family("a mark")
    with family.watched():
        bad = family.start([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, {}, tmp_path / "log")
        assert succeeded(bad, 300, "it") == ["it ended with 3"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_repository(tmp_path)
    (tmp_path / "dvc.yaml").write_text(
        "stages: {one: {cmd: date +%N > one, outs: [one]}, two: {cmd: echo 2 > two, outs: [two]}}"
    )
    return tmp_path


def undisturbed(root: Path) -> State:
    run_all(root)
    return state_of(root)


def run_all(root: Path) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, check=True)


def test_what_is_forgotten_is_done_again_and_its_difference_is_seen(repository: Path) -> None:
    before = undisturbed(repository)
    for forgets_lock in (False, True):
        forget(repository, ["two"], before.lock, forgets_lock)
        assert differences(repository, [], before, forgets_lock)[-1].startswith("still out of date: two")
        run_all(repository)
        assert differences(repository, [], before, forgets_lock) == []
    forget(repository, ["one"], before.lock, False)
    run_all(repository)
    assert "dvc.lock differs in one" in differences(repository, [], before, False)


def test_what_a_kill_leaves_is_seen(repository: Path) -> None:
    before = undisturbed(repository)
    (repository / ".two.1.partial").mkdir()
    (repository / ".two.1.partial" / "half").touch()
    assert differences(repository, [], before, False) == ["left behind: .two.1.partial/half"]


def test_a_seed_draws_the_same_again_and_every_victim_has_its_turn(repository: Path) -> None:
    names = [*stages_in(undisturbed(repository).lock), "train@nice"]
    drawn = [draw(7, number, names, list(VICTIMS)) for number in range(2 * len(VICTIMS))]
    assert drawn == [draw(7, number, names, list(VICTIMS)) for number in range(2 * len(VICTIMS))]
    assert drawn != [draw(8, number, names, list(VICTIMS)) for number in range(2 * len(VICTIMS))]
    assert (
        {one.victim for one in drawn[: len(VICTIMS)]}
        == {one.victim for one in drawn[len(VICTIMS) : 2 * len(VICTIMS)]}
        == set(VICTIMS)
    )
