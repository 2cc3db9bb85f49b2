"""The deployment of prefect.yaml with a real server, a real worker and the real stages, on a copy of this project.

    pytest tests/e2e/test_deployment.py -m e2e

Needs the archives of the raw data, in genpipe's cache or over the network. Everything else is in a temporary directory.
"""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.e2e.conftest import commit, in_production, output, swap_two_labels, train_less
from tests.servers import UNSCHEDULED, Prefect, postgresql, prefect_server, process_worker, why_no_postgresql

IMAGES = ("classifier", "nice")  # the recipes on digits

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server on PostgreSQL that has the project's deployments and a worker for them."""
    if reason := why_no_postgresql():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("prefect")
    with postgresql() as database:
        own = {"PREFECT_API_DATABASE_CONNECTION_URL": database, "PYTHONPATH": str(project)}
        with prefect_server(home, UNSCHEDULED | own) as server:
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


def test_a_changed_digit_runs_what_is_downstream_and_a_worse_model_stays_out_of_production(
    project: Path, server: Prefect, client: SyncPrefectClient
) -> None:
    params, digits = project / "params.yaml", project / "data/digits/train-labels-idx1-ubyte"
    assert in_production(project) == "v0.0.1"  # of the test before
    with _restored(project, params, digits):
        swap_two_labels(digits)
        output(project, sys.executable, "-m", "dvc", "commit", "--quiet", "--force", "data/digits.dvc")
        commit(project, "Correct a label")
        assert _stages_of_a_run(project, server, client) == {
            "prepare@digits", *(f"{verb}@{name}" for verb in ("train", "sample", "evaluate") for name in IMAGES)
        }  # fmt: skip
        assert in_production(project) == "v0.0.2"  # measured by other data: only bounds count

        train_less(params)
        commit(project, "Train less")
        assert "train@classifier" in _stages_of_a_run(project, server, client)
        assert in_production(project) == "v0.0.2"
        (verdict,) = (row for row in _artifact(client, "promotion") if row["model"] == "classifier")
        assert verdict["outcome"] == "not promoted"
        assert re.search(
            r"accuracy is [\d.]+, v0.0.2 has [\d.]+: a gain of -[\d.]+, must be at least 0 \(missed by",
            verdict["why"],
        )


@contextlib.contextmanager
def _restored(root: Path, *paths: Path) -> Iterator[None]:
    """Put files back as they were, for the tests that follow."""
    before = {path: path.read_bytes() for path in paths}
    yield
    for path, content in before.items():
        path.write_bytes(content)
    output(root, sys.executable, "-m", "dvc", "commit", "--quiet", "--force", "data/digits.dvc")
    commit(root, "As it was")


def _stages_of_a_run(root: Path, server: Prefect, client: SyncPrefectClient) -> set[str]:
    """The stages that a run of the deployment ran or restored."""
    server.call(root, "deployment", "run", "retrain/manual", "--watch")
    rows = re.findall(r"^\| (\S+) \| (ran|restored) \|", _artifact(client, "stages"), re.M)
    return {stage for stage, _ in rows}


def _artifact(client: SyncPrefectClient, key: str) -> Any:
    """What the newest artifact of that name says."""
    newest = max((a for a in client.read_artifacts() if a.key == key), key=lambda a: a.created)
    return json.loads(newest.data) if newest.type == "table" else newest.data


def test_the_nightly_deployment_has_its_schedule_and_the_directory_it_was_deployed_from(
    project: Path, client: SyncPrefectClient
) -> None:
    nightly = client.read_deployment_by_name("retrain/nightly")
    assert [getattr(schedule.schedule, "cron", None) for schedule in nightly.schedules] == ["0 3 * * *"]
    assert str(project) in str(nightly.pull_steps)
    assert nightly.global_concurrency_limit is not None
    assert nightly.global_concurrency_limit.limit == 1
