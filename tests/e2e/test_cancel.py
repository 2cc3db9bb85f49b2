"""A run of a deployment that is cancelled in Prefect, as the button of its page does, with a real server and worker.

pytest tests/e2e/test_cancel.py
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from genpipe.graph import read_plan
from tests.clusters import free_port

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(900)]
HERE = Path(__file__).resolve().parents[2]
SCRIPT = """\
import os, pathlib, sys, time
from genpipe import lease
lease.die_with_parent()
name, seconds = sys.argv[1], float(sys.argv[2])
pathlib.Path(f"{name}.pid").write_text(str(os.getpid()))
time.sleep(seconds)
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path("out", name).write_text(name)
"""
DVC_YAML = """\
stages:
  first: {cmd: python stage.py first 0.1, deps: [stage.py], outs: [out/first]}
  second: {cmd: python stage.py second 300, deps: [stage.py, out/first], outs: [out/second]}
"""
DEPLOYMENT = """\
name: tiny
deployments:
- {name: manual, entrypoint: flows/retrain.py:retrain, work_pool: {name: local}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    (root / "flows").symlink_to(HERE / "flows")
    for name, content in {
        "stage.py": SCRIPT, "dvc.yaml": DVC_YAML, "params.yaml": "datasets: {}\n", "prefect.yaml": DEPLOYMENT,
    }.items():  # fmt: skip
        (root / name).write_text(content)
    return root


@contextlib.contextmanager
def running(log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words], stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + 6 * seconds  # a busy machine is no failure
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def is_up(address: str) -> bool:
    with (
        contextlib.suppress(urllib.error.URLError, ConnectionError),
        urllib.request.urlopen(f"{address}/health"),
    ):
        return True
    return False


def test_cancelling_in_prefect_ends_every_process_and_keeps_what_is_finished(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = str(free_port())
    address = f"http://127.0.0.1:{port}/api"
    for name, value in {
        "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": address, "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PYTHONPATH": str(HERE),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    def prefect(*words: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
        subprocess.run(command, cwd=project, check=True, capture_output=True)

    with running(tmp_path / "server.log", "server", "start", "--host", "127.0.0.1", "--port", port):
        wait_until(lambda: is_up(address), 60)
        prefect("work-pool", "create", "local", "--type", "process")
        prefect("deploy", "--all")
        with (
            running(tmp_path / "worker.log", "worker", "start", "--pool", "local") as worker,
            temporary_settings({PREFECT_API_URL: address}),
            get_client(sync_client=True) as client,
        ):
            deployment = client.read_deployment_by_name("retrain/manual")
            run = client.create_flow_run_from_deployment(deployment.id)
            wait_until(lambda: (project / "second.pid").exists(), 120)
            below = psutil.Process(worker.pid).children(recursive=True)
            assert int((project / "second.pid").read_text()) in [process.pid for process in below]
            client.set_flow_run_state(run.id, Cancelling())
            wait_until(lambda: not any(process.is_running() for process in below), 60)
            wait_until(lambda: client.read_flow_run(run.id).state_type == StateType.CANCELLED, 30)
    assert [stage.name for stage in read_plan(project).stale] == ["second"], "the first is not lost"
    assert not (project / "out/second").exists()
    assert list(project.rglob("*.partial")) == []
