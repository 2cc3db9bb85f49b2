"""The deployment of prefect.yaml with a real server, a real worker and the real stages, on a copy of this project.

    pytest tests/e2e/test_deployment.py -m e2e

Needs the archives of the raw data, in genpipe's cache or over the network. Everything else is in a temporary directory.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.servers import Prefect, postgresql, prefect_server, process_worker, why_no_postgresql

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server on PostgreSQL that has the project's deployments and a worker for them."""
    if reason := why_no_postgresql():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("prefect")
    with postgresql() as database:
        settings = {"PREFECT_API_DATABASE_CONNECTION_URL": database, "PYTHONPATH": str(project)}
        with prefect_server(home, settings) as server:
            server.call(project, "work-pool", "create", "local", "--type", "process")
            server.call(project, "deploy", "--all")
            with process_worker(server, project, home / "worker.log"):
                yield server


@pytest.fixture
def client(server: Prefect) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: server.address}), get_client(sync_client=True) as client:
        yield client


def _latest_run(client: SyncPrefectClient) -> FlowRun:
    return client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)[0]


def test_the_deployment_trains_shows_and_then_has_nothing_to_do(
    project: Path, server: Prefect, client: SyncPrefectClient
) -> None:
    server.call(project, "deployment", "run", "retrain/manual", "--watch")
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
    server.call(project, "deployment", "run", "retrain/manual", "--watch")
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
