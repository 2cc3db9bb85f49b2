"""One Ray cluster for the stages of a flow: the same bytes as without it, nothing open to others, nothing left behind.

pytest tests/e2e/test_cluster.py
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from genpipe.files import hash_of
from genpipe.graph import Needs, Plan, Stage, read_plan
from genpipe.params.project import read_params
from tasks import cluster
from tasks.cluster import Cluster, shared
from tasks.stages import Outcomes, place, run_stages

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]
HERE = Path(__file__).resolve().parents[2]
PLAN = Plan(tuple(Stage(name, (), ("x",), Needs(ray=True)) for name in ("left", "right")))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "params.yaml").write_text("datasets: {}\ncluster: {workers: 1}\n")
    return tmp_path


def members(of: Cluster) -> list[psutil.Process]:
    return psutil.Process(of._process.pid).children(recursive=True)


def directories() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"gpray-{os.getpid()}-*"))


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(lives(process) for process in processes)


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # between the two questions, too
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def ask(meeting: dict[str, str], code: str) -> str:
    """What a driver prints that meets the cluster as a stage does."""
    program = (
        "import os, sys, ray\nfrom genpipe.corpus.actors import cluster\n"
        "@ray.remote\ndef ask():\n    import os, sys\n    return " + code + "\n"
        "with cluster(1): print(ray.get(ask.remote()))\n"
    )
    environment = {**os.environ, **meeting, "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr


def test_the_cluster_is_open_to_who_has_its_token_on_this_machine_alone(root: Path) -> None:
    with shared(read_params(root), [PLAN], 2) as shared_cluster:
        assert shared_cluster is not None
        meeting = shared_cluster.environment()
        assert meeting["RAY_ADDRESS"].startswith("127.0.0.1:")
        assert Path(meeting["RAY_AUTH_TOKEN_PATH"]).stat().st_mode & 0o077 == 0
        assert ask(meeting, "os.nice(0)") == str(os.nice(0)), "no nicer than we"
        wrong = root / "token"
        wrong.write_text("0" * 64)
        assert "nvalidAuthToken" in ask({**meeting, "RAY_AUTH_TOKEN_PATH": str(wrong)}, "1")
        there = members(shared_cluster)
        listening = [c.laddr.ip for p in there for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
        assert len(listening) > 2
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
        (private,) = directories()
        assert private.stat().st_mode & 0o777 == 0o700
        assert Path(meeting["RAY_AUTH_TOKEN_PATH"]).parent == private
        assert [path.parent.parent for path in private.rglob("ray_current_cluster")] == [private]
    assert all_gone(there), "it ends before the block does"
    assert directories() == set()


def test_nothing_is_started_for_one_stage_or_where_the_user_names_a_cluster(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared(read_params(root), [Plan(PLAN.stages[:1])], 2) as one:
        assert one is None
    with shared(
        read_params(root), [Plan(tuple(replace(stage, reasons=()) for stage in PLAN.stages))], 2
    ) as fresh:
        assert fresh is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with shared(read_params(root), [PLAN], 2) as named:
        assert named is None
    monkeypatch.delenv("RAY_ADDRESS")
    (root / "params.yaml").write_text("datasets: {}\ncluster: {workers: 0}\n")
    with shared(read_params(root), [PLAN], 2) as without_ray:
        assert without_ray is None


def test_a_cluster_ends_with_the_last_stage_that_uses_it(root: Path) -> None:
    with shared(read_params(root), [PLAN], 2) as shared_cluster:
        assert shared_cluster is not None
        shared_cluster.leave()
        assert shared_cluster.environment(), "another stage uses it"
        there = members(shared_cluster)
        shared_cluster.leave()
        wait_until(lambda: all_gone(there))
        assert shared_cluster.environment() == {}


@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_a_cluster_that_dies_is_not_handed_on_and_nothing_of_it_stays(root: Path, victim: str) -> None:
    with shared(read_params(root), [PLAN], 2) as shared_cluster:
        assert shared_cluster is not None
        assert shared_cluster.environment()
        there = members(shared_cluster)
        next(process for process in there if process.name() == victim).kill()
        wait_until(lambda: not shared_cluster.environment())
        wait_until(lambda: all_gone(there))


def test_a_cluster_whose_sockets_would_have_too_long_names_is_none_and_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("far" * 30)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    with shared(read_params(root), [PLAN], 2) as cluster:
        assert cluster is not None
        assert cluster.environment() == {}
        assert "path" in cluster.last_words()
        assert "107" in cluster.last_words()


def test_a_cluster_ends_with_a_flow_that_is_killed(root: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom genpipe.graph import Needs, Plan, Stage\n"
        "from genpipe.params.project import read_params\nfrom tasks.cluster import shared\n"
        "plan = Plan(tuple(Stage(name, (), ('x',), Needs(ray=True)) for name in ('left', 'right')))\n"
        "with shared(read_params(Path(sys.argv[1])), [plan], 2) as cluster:\n"
        "    assert cluster and cluster.environment()\n    print('up', flush=True)\n    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-c", program, str(root)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "up\n"
        there = psutil.Process(killed.pid).children(recursive=True)
        assert any(process.name() == "raylet" for process in there)
        killed.send_signal(signal.SIGKILL)
    wait_until(lambda: all_gone(there))
    (left,) = Path(tempfile.gettempdir()).glob(f"gpray-{killed.pid}-*")
    with shared(read_params(root), [PLAN], 2):
        assert not left.exists(), "the next flow clears it away"


@contextlib.contextmanager
def two_trainings(project: Path, root: Path) -> Iterator[Path]:
    """A copy of the project with two trainings on Ray Train, each on its own."""
    shutil.copytree(project, root, symlinks=True)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["cluster"] = {"workers": 1, "max_parallel": 1, "executor": "ray"}
    (root / "params.yaml").write_text(
        yaml.safe_dump(params, allow_unicode=True, sort_keys=False), encoding="utf-8"
    )
    yield root


def run(root: Path) -> tuple[Outcomes, float]:
    plan = read_plan(root, ["train@classifier", "train@nice"])
    began = time.monotonic()
    with place(root, [plan], 1) as here:
        outcomes = flow(run_stages)(root, plan, here)
    return outcomes, time.monotonic() - began


def test_two_trainings_on_one_cluster_make_the_bytes_that_they_make_on_their_own(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        prefect_test_harness(server_startup_timeout=300),
        two_trainings(project, tmp_path / "together") as together,
        two_trainings(project, tmp_path / "apart") as apart,
    ):
        outcomes, seconds = run(together)
        assert outcomes.failures == ()
        monkeypatch.setattr(cluster, "WORTH_IT", 3)
        outcomes, seconds_apart = run(apart)
        assert outcomes.failures == ()
        ran = {run.stage for run in outcomes.runs if run.outcome == "ran"}
        assert ran == {"code", "prepare@digits", "train@classifier", "train@nice"}
    print(f"two trainings: {seconds:.1f} s with one cluster, {seconds_apart:.1f} s with two")
    assert (together / "dvc.lock").read_bytes() == (apart / "dvc.lock").read_bytes()
    models = [hash_of([root / "artifacts/models"], root) for root in (together, apart)]
    assert models[0] == models[1]
