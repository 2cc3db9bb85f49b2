"""One stage under DVC, with real processes: what it prints, how often it dies, whom it waits for, what it leaves."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from genpipe.graph import Needs, Stage, inputs_of, read_plan
from genpipe.redaction import masker
from tasks import attempts, guard, watchdog
from tasks.reproduce import Processes, StageFailed, StageRun, reproduce
from tasks.stages import LINES_AT_ONCE, Trickle
from tests.repository import make_repository

SCRIPT = """\
import os, pathlib, sys, time
for line in pathlib.Path("words.txt").read_text().splitlines():
    print(os.path.expandvars(line), flush=True)
with open("starts", "a") as starts: starts.write("x")
time.sleep(float(pathlib.Path("seconds").read_text()))
status = int(pathlib.Path("status").read_text())
pathlib.Path("out").write_text("done") if status == 0 else sys.exit(status)
"""
DVC_YAML = "stages: {work: {cmd: python work.py, deps: [words.txt, seconds, status], outs: [out]}}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_repository(tmp_path)
    for name, content in {
        "work.py": SCRIPT, "dvc.yaml": DVC_YAML, "words.txt": "hello\n", "seconds": "0", "status": "0",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
    return tmp_path


def run(
    root: Path,
    needs: Needs | None = None,
    processes: Processes | None = None,
    heard: Callable[[str], None] = lambda line: None,
) -> tuple[StageRun, list[str]]:
    """Reproduce the stage; `heard` is called with each of its lines."""
    lines: list[str] = []
    stage = Stage("work", (), ("x",), needs or Needs())
    show = lambda line: (lines.append(line), heard(line))
    return reproduce(root, stage, processes or Processes(), show), lines


def starts(root: Path) -> int:
    return len((root / "starts").read_text()) if (root / "starts").exists() else 0


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_dvc_lock_is_replaced_and_not_written_in_place(project: Path) -> None:
    """Else a kill at that moment would lose the entries of all stages; DVC itself writes it in place."""
    run(project)
    (project / "before").hardlink_to(project / "dvc.lock")
    (project / "seconds").write_text("0.0")
    run(project)
    assert (project / "before").read_text() != (project / "dvc.lock").read_text()
    (project / "between").hardlink_to(project / "dvc.lock")
    (project / "seconds").write_text("0.00")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=project, check=True)
    assert (project / "between").read_text() == (project / "dvc.lock").read_text(), (
        "DVC itself has learned it"
    )


def test_a_list_of_used_files_that_a_killed_dvc_left_half_written_is_in_nobodys_way(project: Path) -> None:
    table = project / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir(exist_ok=True)
    table.write_text("")
    assert run(project)[0].outcome == "ran"
    table.write_text('{"half')
    assert not read_plan(project).stale


def test_secrets_are_masked_in_what_is_shown_in_the_log_and_in_the_failure(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_PASSWORD", "sesame-open/9")
    (project / "words.txt").write_text(
        "mounted with $STORE_PASSWORD\nfetched https://me:hunter2@host/x\n$STORE_PASSWORD is no use\n"
    )
    (project / "status").write_text("1")
    shown: list[str] = []
    with pytest.raises(StageFailed) as failure:
        reproduce(project, Stage("work", (), ("x",), Needs()), Processes(), shown.append)
    log = (project / ".genpipe/logs/work.log").read_text()
    for text in ("\n".join(shown), log, str(failure.value)):
        assert "sesame" not in text
        assert "hunter2" not in text
    assert "mounted with ***" in log
    assert "fetched https://***@host/x" in shown
    assert "work failed: *** is no use (log: .genpipe/logs/work.log)" in str(failure.value)


@pytest.mark.parametrize(
    ("name", "value", "line", "masked"),
    [
        ("API_TOKEN", "abcdefgh", "got abcdefgh.", "got ***."),
        ("API_TOKEN", "abcdefg", "got abcdefg.", "got abcdefg."),  # a word of 7 letters may be any word
        ("HOME_SWEET", "abcdefgh", "got abcdefgh.", "got abcdefgh."),
        ("RAY_AUTH_TOKEN_PATH", "/tmp/token", "in /tmp/token", "in /tmp/token"),
        ("AWS_SECRET_ACCESS_KEY", "a/b+c/d=e", "?key=a%2Fb%2Bc%2Fd%3De", "?key=***"),
        ("SSH_KEY", "first line\nsecond line", "> second line", "> ***"),
        ("X", "", "postgresql+asyncpg://bot:p@ss@db/prefect", "postgresql+asyncpg://***@db/prefect"),
        ("X", "", "https://ghp_0123@github.com/a/b", "https://***@github.com/a/b"),
        ("X", "", "ssh://git@github.com/a", "ssh://git@github.com/a"),
        ("X", "", "at 12:30 mail me@host", "at 12:30 mail me@host"),
    ],
)  # fmt: skip
def test_what_is_masked_and_what_is_not(name: str, value: str, line: str, masked: str) -> None:
    assert masker({name: value})(line) == masked


def test_a_flood_of_lines_reaches_the_log_and_hardly_the_server() -> None:
    told: list[str] = []
    trickle = Trickle(told.append, Path("work.log"))
    for number in range(1000):
        trickle.pass_on(f"line {number}")
    trickle.finish()
    assert told[:LINES_AT_ONCE] == [f"line {number}" for number in range(LINES_AT_ONCE)]
    held_back = sum(int(line.split()[1]) for line in told if line.startswith("…"))
    lines = [line for line in told if not line.startswith("…")]
    assert len(lines) + held_back == 1000
    assert len(lines) < 100
    assert "more lines are in work.log" in told[-1]


def test_a_stage_that_died_too_often_with_the_same_inputs_is_refused_until_they_change(project: Path) -> None:
    (project / "status").write_text("1")
    needs = Needs(attempts=2)
    for _ in range(2):
        with pytest.raises(StageFailed, match="hello"):
            run(project, needs)
    assert starts(project) == 2
    with pytest.raises(StageFailed) as refusal:
        run(project, needs)
    assert starts(project) == 2, "it was started again"
    assert refusal.value.is_final
    told = str(refusal.value)
    assert "it died 2 times with the very same inputs" in told
    assert "--retry-failed" in told
    assert ".genpipe/logs/work.log" in told
    assert "hello" in (project / ".genpipe/logs/work.log").read_text(), "the log of the last death is kept"
    (project / "words.txt").write_text("something new\n")
    with pytest.raises(StageFailed, match="something new"):
        run(project, needs)
    assert starts(project) == 3


def test_what_dvc_has_against_a_stage_is_the_reason_and_not_the_stage_s_last_word(project: Path) -> None:
    (project / "dvc.yaml").write_text(DVC_YAML.replace("outs: [out]", "outs: [out, other]"))
    with pytest.raises(StageFailed, match=r"^work failed: output 'other' does not exist \(log: "):
        run(project)


def test_success_clears_the_count_and_a_person_can(project: Path) -> None:
    (project / "status").write_text("1")
    with pytest.raises(StageFailed):
        run(project)
    work = Stage("work", (), ("x",), Needs())
    assert attempts.deaths(project, work) == 1
    (project / "status").write_text("0")
    run(project)
    assert list((project / ".genpipe/attempts").iterdir()) == []
    (project / "status").write_text("1")
    with pytest.raises(StageFailed):
        run(project)
    attempts.forget(project)
    assert attempts.deaths(project, work) == 0


def test_bad_input_and_an_end_from_outside_are_no_deaths(project: Path) -> None:
    work = Stage("work", (), ("x",), Needs())
    (project / "status").write_text("2")
    with pytest.raises(StageFailed) as failure:
        run(project)
    assert failure.value.is_final
    assert attempts.deaths(project, work) == 0
    (project / "seconds").write_text("86400")
    processes = Processes()
    threading.Thread(target=lambda: (wait_until(lambda: starts(project) == 2), processes.end_all())).start()
    with pytest.raises(StageFailed, match="it was ended"):
        run(project, processes=processes)
    assert attempts.deaths(project, work) == 0


def test_an_unavailable_stage_is_tried_again_and_is_not_a_death(project: Path) -> None:
    (project / "status").write_text("69")
    with pytest.raises(StageFailed) as failure:
        run(project)
    assert failure.value.fault == "unavailable"
    assert not failure.value.is_final
    assert attempts.deaths(project, Stage("work", (), ("x",), Needs())) == 0


def test_a_timeout_is_a_death(project: Path) -> None:
    (project / "seconds").write_text("86400")
    with pytest.raises(StageFailed, match="timed out after 5 seconds") as failure:
        run(project, Needs(timeout=5))
    assert not failure.value.is_final
    assert attempts.deaths(project, Stage("work", (), ("x",), Needs())) == 1


def test_the_hash_of_the_inputs_follows_each_of_them(project: Path) -> None:
    first = inputs_of(project, "work")
    assert first is not None
    assert inputs_of(project, "work") == first
    (project / "words.txt").write_text("other\n")
    second = inputs_of(project, "work")
    (project / "dvc.yaml").write_text(DVC_YAML.replace("python work.py", "python -u work.py"))
    assert len({first, second, inputs_of(project, "work")}) == 3
    assert inputs_of(project, "play") is None


@contextlib.contextmanager
def stranger_with_the_lock(root: Path) -> Iterator[int]:
    """A process that is no child of this one, as one of the flow would be."""
    hold = (
        "import os, sys, time, zc.lockfile\n"
        "if os.fork(): os._exit(0)\n"
        "held = zc.lockfile.LockFile(sys.argv[1]); print(os.getpid(), flush=True); time.sleep(300)"
    )
    command = [sys.executable, "-c", hold, str(root / ".dvc/tmp/lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_who_holds_dvc_s_lock_for_too_long_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "PATIENCE", 5.0)
    (project / ".dvc/tmp").mkdir(exist_ok=True)
    with stranger_with_the_lock(project) as pid, pytest.raises(StageFailed) as failure:
        run(project)
    told = str(failure.value)
    assert "DVC waited 5 s for tmp/lock" in told
    assert f"held by process {pid} (" in told
    assert "zc.lockfile" in told, "its command is shown"
    assert "genpipe unlock" in told
    assert failure.value.is_final
    assert starts(project) == 0
    assert run(project)[0].outcome == "ran"


def test_a_long_silent_stage_is_not_taken_for_one_that_waits(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "PATIENCE", 0.5)
    (project / "seconds").write_text("4")
    assert run(project)[0].outcome == "ran"


def test_a_lock_that_is_held_for_a_while_costs_time_and_nothing_else(project: Path) -> None:
    (project / ".dvc/tmp").mkdir(exist_ok=True)
    begun: list[int] = []

    def let_go(pid: int) -> None:
        begun.append(starts(project))
        os.kill(pid, signal.SIGKILL)

    with stranger_with_the_lock(project) as pid:
        threading.Timer(6, let_go, (pid,)).start()
        run_of_stage, _ = run(project)
    assert run_of_stage.outcome == "ran"
    assert (begun, starts(project)) == ([0], 1)


def write_lock_on_out(root: Path, pid: int, command: str) -> None:
    path, entry = root / ".dvc/tmp/rwlock", {"pid": pid, "cmd": command}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"write": {str(root / "out"): entry}, "read": {}}))


def end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()  # a zombie is alive to DVC


def test_a_path_that_is_busy_is_waited_for(project: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as holder:
        write_lock_on_out(project, holder.pid, "x 600")
        run_of_stage, lines = run(project, heard=lambda line: end(holder) if "is busy" in line else None)
    assert run_of_stage.outcome == "ran"
    assert any("is busy" in line for line in lines)
    assert starts(project) == 1


@pytest.mark.parametrize(("command", "is_dead"), [("/usr/bin/sleep 600", False), ("dvc repro work", True)])
def test_who_keeps_a_path_busy_for_too_long_is_named_and_a_reused_number_is_seen(
    project: Path, monkeypatch: pytest.MonkeyPatch, command: str, is_dead: bool
) -> None:
    monkeypatch.setattr("tasks.reproduce.BUSY_PATIENCE", 0.0)
    with subprocess.Popen(["sleep", "600"]) as holder:
        write_lock_on_out(project, holder.pid, command)
        with pytest.raises(StageFailed) as failure:
            run(project)
        holder.kill()
    assert f"worked on by process {holder.pid} ({command})" in str(failure.value)
    assert ("`genpipe unlock` removes its lock" in str(failure.value)) == is_dead
    assert attempts.deaths(project, Stage("work", (), ("x",), Needs())) == 0


def test_the_second_copy_of_a_stage_waits_for_the_first(project: Path) -> None:
    (project / "dvc.yaml").write_text(DVC_YAML.replace("python work.py", f"{sys.executable} held.py"))
    (project / "held.py").write_text(
        "import pathlib, sys\nfrom genpipe import lease\n"
        "try: held = lease.hold(pathlib.Path.cwd(), 'work')\n"
        "except lease.Busy as error: print(error); sys.exit(lease.BUSY)\n" + SCRIPT
    )
    first = (
        "import time, pathlib; from genpipe import lease\n"
        "l = lease.hold(pathlib.Path.cwd(), 'work'); print('held', flush=True); time.sleep(86400)"
    )
    command = [sys.executable, "-c", first]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        is_told = "work is being run by process"
        run_of_stage, lines = run(project, heard=lambda line: end(holder) if is_told in line else None)
    assert any(f"work is being run by process {holder.pid}" in line for line in lines)
    assert run_of_stage.outcome == "ran"
    assert starts(project) == 1


def guarded(code: str, timeout: float | None = None, grace: float = guard.GRACE) -> subprocess.Popen[str]:
    command = guard.guarded([sys.executable, "-c", code], timeout, grace)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def numbers(process: subprocess.Popen[str], count: int) -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)]


RUNAWAY = (  # a child that leaves the group, whose parent ends; and one that stays and ignores SIGTERM
    "import os, signal, subprocess, sys, time\n"
    "sleep = [sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)']\n"
    "if os.fork() == 0:\n"
    "    print(subprocess.Popen(sleep, start_new_session=True, stdout=subprocess.DEVNULL).pid, flush=True)\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "print(subprocess.Popen(sleep, stdout=subprocess.DEVNULL).pid, flush=True)\n"
)


def is_gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_what_a_command_leaves_behind_ends_with_it_even_outside_its_group() -> None:
    with guarded(RUNAWAY) as process:
        left = numbers(process, 2)
        assert process.wait(300) == 0
    assert all(map(is_gone, left))


def test_children_are_found_while_threads_begin_and_end() -> None:
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            short = [threading.Thread(target=time.sleep, args=(0.001,)) for _ in range(20)]
            for thread in short:
                thread.start()
            for thread in short:
                thread.join()

    churning = threading.Thread(target=churn)
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(sleep) as adopted, subprocess.Popen(sleep) as own:
        churning.start()
        try:
            found = [guard.adopted(own.pid) for _ in range(500)]
        finally:
            over.set()
            churning.join()
            adopted.kill()
            own.kill()
    assert all(adopted.pid in [process.pid for process in children] for children in found)
    assert not any(own.pid in [process.pid for process in children] for children in found)


def test_a_guard_that_is_killed_takes_its_command_along() -> None:
    with guarded("import os, time; print(os.getpid(), flush=True); time.sleep(600)") as process:
        (command,) = numbers(process, 1)
        process.kill()
        wait_until(lambda: is_gone(command))


def test_a_timeout_ends_the_whole_group_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    code = RUNAWAY.replace("SIG_IGN", "SIG_DFL") + "time.sleep(86400)\n"
    for timeout in (3, 30, 300):  # a busy machine may not have begun in three seconds
        with guarded(code, timeout, grace=86400) as process:  # nothing ignores SIGTERM, nothing is waited for
            assert process.stdout is not None
            printed = process.stdout.read()
            assert process.wait(600) == guard.TIMED_OUT
        assert f"timed out after {timeout} seconds" in capfd.readouterr().err
        if len(left := printed.split()) == 2:
            break
    assert all(is_gone(int(pid)) for pid in left)
    assert len(left) == 2
