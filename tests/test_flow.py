"""The retrain flow on a tiny DVC project, with a real Prefect server and real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_API_URL
from prefect.states import State
from prefect.testing.utilities import prefect_test_harness

from flows.direct import main
from flows.retrain import retrain
from genpipe import lease
from genpipe.graph import Needs, Stage, read_plan
from tasks import attempts
from tasks.order import downstream, next_to_start
from tasks.reproduce import Processes, StageFailed, reproduce
from tasks.times import read_times
from tests.repository import make_repository

HERE = Path(__file__).resolve().parent.parent
STAGE = """\
import json, os, pathlib, sys, time
from genpipe import lease
lease.die_with_parent()
name, out = sys.argv[1:]
held = lease.hold(pathlib.Path.cwd(), name)
knobs = json.loads(pathlib.Path("knobs.json").read_text())[name]
pathlib.Path("pids").mkdir(exist_ok=True)
pathlib.Path("pids", f"{name}-{os.getpid()}").touch()
pathlib.Path(out).parent.mkdir(exist_ok=True)
print("processes:", os.environ.get("GENPIPE_WORKERS"), file=sys.stderr)
for percent in range(0, 101, 50):
    print(f"{name}: {percent} % ({percent} of 100 steps)", file=sys.stderr, flush=True)
    time.sleep(knobs["seconds"] / 3)
if knobs["status"]:
    print(f"{name} is not well", file=sys.stderr)
    sys.exit(knobs["status"])
pathlib.Path(out).write_text(name)
"""
STAGES = {"prepare": [], "left": ["prepare"], "right": ["prepare"], "join": ["left", "right"]}
KNOBS = {name: {"seconds": 0.3, "status": 0} for name in STAGES}


def write_knobs(root: Path, **changed: dict[str, float]) -> None:
    (root / "knobs.json").write_text(
        json.dumps({**KNOBS, **{n: {**KNOBS[n], **v} for n, v in changed.items()}})
    )


def write_graph(root: Path, meta: str = "{}") -> None:
    lines = ["stages:"]
    for name, upstream in STAGES.items():
        deps = ", ".join(["stage.py", *(f"out/{above}" for above in upstream)])
        lines += [f"  {name}:", f"    cmd: python stage.py {name} out/{name}", f"    deps: [{deps}]"]
        lines += [
            f"    params: [knobs.json: [{name}]]",
            f"    outs: [out/{name}]",
            f"    meta: {{genpipe: {meta}}}",
        ]
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[str]:
    with prefect_test_harness(server_startup_timeout=300):
        yield PREFECT_API_URL.value()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_repository(tmp_path)
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "params.yaml").write_text("datasets: {}\ncluster: {max_parallel: 2}\n")
    write_knobs(tmp_path)
    write_graph(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_flow(**parameters: Any) -> State:
    return retrain(**parameters, return_state=True)  # pyright: ignore[reportCallIssue]


def started(root: Path) -> list[str]:
    return sorted(path.name.rsplit("-")[0] for path in root.glob("pids/*"))


def alive(root: Path) -> list[int]:
    pids = [int(path.name.rsplit("-")[1]) for path in root.glob("pids/*")]
    return [pid for pid in pids if _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + 4 * seconds  # a busy machine is no failure
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_all_stages_run_and_a_second_run_starts_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = run_flow()
    assert state.is_completed(), state.message
    assert started(project) == ["join", "left", "prepare", "right"]
    log = (project / ".genpipe/logs/left.log").read_text()
    assert "left: 100 % (100 of 100 steps)" in log
    assert "processes: 1\n" in log
    assert set(read_times(project, read_plan(project).stages).recorded) == set(STAGES)
    shutil.rmtree(project / "pids")
    shutil.rmtree(project / ".genpipe/logs")
    attempts.died(project, Stage("left", (), (), Needs()))  # who watched it was killed after it had finished
    second = run_flow()
    assert (second.type.value, second.name) == ("COMPLETED", "UpToDate")
    assert not list((project / ".genpipe/attempts").iterdir())
    assert not (project / ".genpipe/logs").exists()  # no DVC process was started
    capsys.readouterr()
    assert main([]) == 0
    assert "everything is up to date" in capsys.readouterr().out


def test_a_failed_stage_fails_the_flow_but_not_its_neighbours(project: Path) -> None:
    write_knobs(project, right={"status": 1})
    state = run_flow()
    assert state.is_failed()
    assert "right failed: right is not well (log: .genpipe/logs/right.log)" in str(state.message)
    assert "not run because of that: join" in str(state.message)
    assert started(project) == ["left", "prepare", "right"]
    assert "right is not well" in (project / ".genpipe/logs/right.log").read_text()
    write_knobs(project)
    shutil.rmtree(project / "pids")
    assert run_flow().is_completed()
    assert started(project) == ["join", "right"]


def test_a_failed_stage_is_named_also_where_the_report_cannot_be_written(project: Path) -> None:
    write_knobs(project, left={"status": 2})
    stranger = project / "artifacts/report/diary.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    state = run_flow()
    assert state.is_failed()
    assert "left is not well" in str(state.message)
    assert stranger.read_text() == "mine"


def test_a_stage_is_tried_again_unless_its_input_is_at_fault(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.stages.RETRY_DELAY", 0)
    write_graph(project, "{retries: 1}")
    write_knobs(project, prepare={"status": 1})
    assert run_flow(targets=["prepare"]).is_failed()
    assert started(project) == ["prepare", "prepare"]
    write_knobs(project, prepare={"status": 69})
    shutil.rmtree(project / "pids")
    assert run_flow(targets=["prepare"]).is_failed()
    assert started(project) == ["prepare", "prepare"]
    write_knobs(project, prepare={"status": 2})
    shutil.rmtree(project / "pids")
    assert run_flow(targets=["prepare"]).is_failed()
    assert started(project) == ["prepare"]


def test_a_change_that_changes_nothing_downstream_is_cut_off(project: Path) -> None:
    assert run_flow().is_completed()
    shutil.rmtree(project / "pids")
    write_knobs(project, prepare={"seconds": 0.1})
    assert run_flow().is_completed()
    assert started(project) == ["prepare"]
    shown = shown_outcomes()
    assert "| prepare | ran |" in shown
    assert all(f"| {name} | skipped |" in shown for name in ("left", "right", "join"))
    write_knobs(project)
    assert run_flow().is_completed()
    assert started(project) == ["prepare"]  # the first outputs came back from the cache
    assert "| prepare | restored |" in shown_outcomes()


def shown_outcomes() -> str:
    """The table that the last run shows in Prefect."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["stages"])))
    return str(max(found, key=lambda artifact: str(artifact.created)).data)


def test_deaths_are_counted_over_retries_and_runs_until_a_person_says_otherwise(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.stages.RETRY_DELAY", 0)
    write_graph(project, "{retries: 1, attempts: 3}")
    write_knobs(project, prepare={"status": 1, "seconds": 0.1})
    for _ in range(3):
        state = run_flow(targets=["prepare"])
        assert state.is_failed()
    assert started(project) == ["prepare"] * 3
    assert "it died 3 times with the very same inputs" in str(state.message)
    assert run_flow(targets=["prepare"], retry_failed=True).is_failed()
    assert started(project) == ["prepare"] * 5


def test_deaths_of_a_stage_that_was_finished_unwatched_are_forgotten(project: Path) -> None:
    write_knobs(project, prepare={"status": 1})
    assert run_flow(targets=["prepare"]).is_failed()
    count = project / ".genpipe/attempts/prepare.json"
    assert count.exists()
    main(["left"])
    assert count.exists(), "it is still to be done"
    write_knobs(project)
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=project, check=True)
    assert main([]) == 0
    assert not count.exists()


def test_progress_and_metrics_are_artifacts(project: Path) -> None:
    write_knobs(project, left={"seconds": 4.0})
    (project / "artifacts/metrics").mkdir(parents=True)
    (project / "artifacts/metrics/nice.json").write_text('{"bits_per_dim": 1.5}')
    assert run_flow().is_completed()
    with get_client(sync_client=True) as client:
        keys = ["progress-left", "metrics", "stages"]
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=keys)))
    latest = {
        artifact.key: artifact for artifact in sorted(found, key=lambda artifact: str(artifact.created))
    }
    assert latest["progress-left"].data == 100.0
    assert "bits_per_dim" in str(latest["metrics"].data)
    assert "| left | ran |" in str(latest["stages"].data)


def test_a_second_flow_is_told_that_the_first_one_runs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lease.hold(project, "retrain"):
        state = run_flow()
        assert (state.type.value, state.name) == ("CANCELLED", "Busy")
        assert f"retrain is being run by process {os.getpid()}" in str(state.message)
        assert main([]) == lease.BUSY
    assert capsys.readouterr().err.count("\n") == 1
    assert started(project) == []


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_stage_outlives_its_flow_and_a_rerun_completes(
    project: Path, server: str, ending: signal.Signals
) -> None:
    write_knobs(project, left={"seconds": 86400}, right={"seconds": 86400})
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PREFECT_API_URL": server}
    command = [sys.executable, "-m", "flows.retrain", "--max-parallel", "2"]
    with subprocess.Popen(command, cwd=project, env=environment, start_new_session=True) as flow:
        try:
            wait_until(lambda: {"left", "right"} <= set(started(project)), 120)
            assert len(alive(project)) == 2
            below = psutil.Process(flow.pid).children(recursive=True)
            flow.send_signal(ending)
            wait_until(lambda: not alive(project), 30)
            assert flow.wait(600) != 0
            wait_until(lambda: not any(process.is_running() for process in below), 30)
        finally:
            flow.kill()
    write_knobs(project)
    state = run_flow()
    assert state.is_completed(), state.message
    assert (project / "out/join").read_text() == "join"
    assert started(project).count("prepare") == 1, "what was finished is not lost"
    assert list(project.rglob("*.partial")) == []


def test_a_stage_that_takes_too_long_is_ended(project: Path) -> None:
    write_knobs(project, prepare={"seconds": 86400})
    stage = Stage("prepare", (), (), Needs(timeout=4))
    with pytest.raises(StageFailed, match="prepare failed: timed out after 4 seconds"):
        reproduce(project, stage, Processes(), show=lambda line: None)
    assert alive(project) == []


def test_bad_input_is_one_line_and_status_2(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "no stage 'trian' in dvc.yaml" in capsys.readouterr().err
    assert main(["--max-parallel", "0"]) == 2
    (project / "params.yaml").write_text("datasets: {}\nclustre: {}\n")
    assert main([]) == 2
    assert "clustre" in capsys.readouterr().err


def test_a_disk_that_cannot_be_written_is_one_line_and_status_2(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / ".genpipe", ignore_errors=True)
    (project / ".genpipe").symlink_to("/sys")  # nobody may make a directory there, not even root
    assert main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("genpipe: ")
    assert error.count("\n") == 1
    assert "change the rights, and run it again" in error


def test_the_order_respects_upstream_room_and_the_number_of_stages() -> None:
    prepare, left = Stage("prepare", (), ("x",), Needs()), Stage("left", ("prepare",), ("x",), Needs())
    other = Stage("other", (), ("x",), Needs())
    assert next_to_start([prepare, left, other], [], 1) == prepare
    assert next_to_start([left, other], [prepare], 2) == other
    assert next_to_start([left, other], [prepare], 1) is None
    assert next_to_start([left], [prepare], 2) is None
    greedy = Stage("greedy", (), ("x",), Needs(cpus=10_000))
    assert next_to_start([greedy], [prepare], 2) is None
    assert next_to_start([greedy, other], [prepare], 2) is None, "else it might wait to the end"
    assert next_to_start([greedy], [], 2) == greedy
    assert next_to_start([other], [prepare], 2, claims={"other": 10_000}) is None
    assert next_to_start([other], [prepare], 2, claims={"prepare": 10_000}) is None
    urgent = Stage("urgent", (), ("x",), Needs(priority=1))
    assert next_to_start([prepare, other, urgent, left], [], 2) == urgent
    assert next_to_start([left, other], [prepare, urgent], 3) == other
    assert next_to_start([prepare, Stage("then", ("prepare",), ("x",), Needs(priority=9))], [], 2) == prepare
    assert downstream("prepare", [left, other]) == [left]


def test_the_plan_of_the_tiny_project_is_what_the_flow_runs(project: Path) -> None:
    assert {stage.name: list(stage.upstream) for stage in read_plan(project).stages} == STAGES
