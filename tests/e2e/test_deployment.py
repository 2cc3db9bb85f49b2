"""The deployment of prefect.yaml with a real server, a real worker and the real stages, on a copy of this project.

    pytest tests/e2e/test_deployment.py -m e2e

Needs the archives of the raw data, in genpipe's cache or over the network. Everything else is in a temporary directory.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.e2e.conftest import output

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def api(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has the project's deployments and a worker for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home, address = tmp_path_factory.mktemp("prefect"), f"http://127.0.0.1:{port}/api"
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": address,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(project),
        }.items():
            environment.setenv(name, value)
        with _running(home / "server.log", "server", "start", "--host", "127.0.0.1", "--port", str(port)):
            _wait_for(f"{address}/health")
            _prefect(project, "work-pool", "create", "local", "--type", "process")
            _prefect(project, "deploy", "--all")
            with _running(home / "worker.log", "worker", "start", "--pool", "local"):
                yield address


@contextlib.contextmanager
def _running(log: Path, *words: str) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", *words]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(address):
            return
        time.sleep(0.5)
    raise TimeoutError(address)


def _prefect(root: Path, *words: str) -> str:
    return output(root, sys.executable, "-m", "prefect", "--no-prompt", *words)


@pytest.fixture
def client(api: str) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        yield client


def _latest_run(client: SyncPrefectClient) -> FlowRun:
    return client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)[0]


def test_the_deployment_trains_shows_and_then_has_nothing_to_do(
    project: Path, client: SyncPrefectClient
) -> None:
    _prefect(project, "deployment", "run", "retrain/manual", "--watch")
    state = _latest_run(client).state
    assert state is not None
    assert state.is_completed(), state.message
    assert (project / "artifacts/report/index.html").is_file()

    artifacts = {artifact.key: artifact for artifact in client.read_artifacts()}
    assert artifacts["metrics"].type == "table"
    assert "bits_per_dim" in str(artifacts["metrics"].data)
    assert artifacts["progress-train-nice"].data == 100.0
    assert "| train@nice | ran |" in str(artifacts["stages"].data)

    logs = sorted(path.stat().st_mtime_ns for path in project.glob(".genpipe/logs/*.log"))
    _prefect(project, "deployment", "run", "retrain/manual", "--watch")
    second = _latest_run(client).state
    assert second is not None
    assert (second.type.value, second.name) == ("COMPLETED", "UpToDate")
    assert logs == sorted(path.stat().st_mtime_ns for path in project.glob(".genpipe/logs/*.log"))


def test_the_nightly_deployment_has_its_schedule_and_the_directory_it_was_deployed_from(
    project: Path, client: SyncPrefectClient
) -> None:
    nightly = client.read_deployment_by_name("retrain/nightly")
    assert [getattr(schedule.schedule, "cron", None) for schedule in nightly.schedules] == ["0 3 * * *"]
    assert str(project) in str(nightly.pull_steps)
    assert nightly.global_concurrency_limit is not None
    assert nightly.global_concurrency_limit.limit == 1
