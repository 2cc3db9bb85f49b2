"""Schedules, leases and notifications: what Prefect's server does by itself, asked of a real server with a real worker.

pytest tests/e2e/test_schedule.py
"""

import contextlib
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending

from genpipe.upkeep import server as doctor_of_server
from genpipe.upkeep.finding import Finding
from tests.clusters import free_port
from tests.servers import Prefect, postgresql, prefect_server, process_worker, why_no_postgresql
from tests.webhook import BLOCK, notifications

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1200)]
HERE = Path(__file__).resolve().parents[2]
FLOWS = """\
import time
from pathlib import Path

from prefect import flow
from prefect.concurrency import _leases

_leases._RENEWAL_FRACTION = 0.02  # a lease is renewed every 6 seconds then, not every 225

@flow
def draw():
    return 1

@flow
def fail():
    raise ValueError("no pencil")

@flow
def wait():
    while not Path("go").exists():
        time.sleep(0.1)
"""
DEPLOYMENTS = """\
definitions:
  usual: &usual
    work_pool: {name: local}
    tags: [genpipe]
    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}
deployments:
- {<<: *usual, name: nightly, entrypoint: "flow.py:draw", schedules: [{cron: "0 3 1 1 *", slug: nightly, active: true}]}
- {<<: *usual, name: now, entrypoint: "flow.py:wait"}
- {<<: *usual, name: now, entrypoint: "flow.py:fail"}
"""
OFTEN = """\
- {<<: *usual, name: often, entrypoint: "flow.py:draw", schedules: [{interval: 10, slug: often, active: true}]}
"""
WITHIN = {"600": "20", "90000": "20"}  # seconds of the automations, in the file and here
SWEPT = 90  # seconds after which Prefect, by its own default, has forgotten a window of 20


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three flows, and the automations of this project with short windows."""
    root = tmp_path / "project"
    (root / "deploy/prefect").mkdir(parents=True)
    for name in ("flows", "tasks", "genpipe"):
        (root / name).symlink_to(HERE / name)
    (root / "flow.py").write_text(FLOWS, encoding="utf-8")
    (root / "prefect.yaml").write_text(DEPLOYMENTS, encoding="utf-8")
    for path in (HERE / "deploy/prefect").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        for seconds, short in WITHIN.items():
            text = text.replace(f"within: {seconds}\n", f"within: {short}\n")
        (root / "deploy/prefect" / path.name).write_text(text, encoding="utf-8")
    return root


def deploy(server: Prefect, project: Path, more: str = "") -> None:
    """The deployments of prefect.yaml, and `more`."""
    with (project / "prefect.yaml").open("a", encoding="utf-8") as file:
        file.write(more)
    server.call(project, "work-pool", "create", "local", "--type", "process")
    server.call(project, "deploy", "--all")


def automate(server: Prefect, project: Path, *words: str) -> None:
    command = [sys.executable, "-m", "flows.automations", *words]
    done = subprocess.run(command, cwd=project, env=server.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def doctor(project: Path) -> dict[str, Finding]:
    """What the doctor finds about the server that is set."""
    return {finding.subject: finding for finding in doctor_of_server.prefect(project)}


def follow(server: Prefect, project: Path, finding: Finding) -> None:
    """Do as the doctor says, with a command of Prefect."""
    program, *words = shlex.split(finding.remedy)
    assert program == "prefect"
    server.call(project, *words)


@contextlib.contextmanager
def client_of(server: Prefect) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: server.address}), get_client(sync_client=True) as client:
        yield client


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)


def runs_in(client: SyncPrefectClient, deployment: str, state: StateType) -> list[FlowRun]:
    """The runs of a deployment that the server's schedule made, in one state."""
    identity = client.read_deployment_by_name(deployment).id
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state]))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[identity])),
    )
    return [run for run in found if run.auto_scheduled]


def names_of_states(client: SyncPrefectClient, run: FlowRun) -> list[str]:
    return [state.name or "" for state in client.read_flow_run_states(run.id)]


def start(client: SyncPrefectClient, deployment: str) -> FlowRun:
    return client.create_flow_run_from_deployment(client.read_deployment_by_name(deployment).id)


@contextlib.contextmanager
def database(kind: str) -> Iterator[dict[str, str]]:
    if kind == "SQLite":
        yield {}
        return
    with postgresql() as url:
        yield {"PREFECT_API_DATABASE_CONNECTION_URL": url}


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
def test_the_server_schedules_runs_and_begins_one_by_itself(kind: str, project: Path, tmp_path: Path) -> None:
    if kind == "PostgreSQL" and (reason := why_no_postgresql()):
        pytest.skip(reason)
    with database(kind) as settings, prefect_server(tmp_path, settings) as server:
        deploy(server, project, OFTEN)
        with client_of(server) as client:
            wait_until(lambda: runs_in(client, "draw/nightly", StateType.SCHEDULED))
            with process_worker(server, project, tmp_path / "worker.log"):
                wait_until(lambda: runs_in(client, "draw/often", StateType.COMPLETED))


def test_a_flow_goes_on_while_the_server_is_killed_and_started_again(project: Path, tmp_path: Path) -> None:
    port, leases = free_port(), tmp_path / "concurrency_leases"
    with contextlib.ExitStack() as stack:
        with prefect_server(tmp_path, port=port) as server, client_of(server) as client:
            deploy(server, project)
            stack.enter_context(process_worker(server, project, tmp_path / "worker.log"))
            run = start(client, "wait/now")
            wait_until(lambda: client.read_flow_run(run.id).state_name == "Running")
            server.process.kill()
        (lease,) = leases.glob("*-*.json")
        before = lease.read_text(encoding="utf-8")
        with prefect_server(tmp_path, port=port) as server, client_of(server) as client:
            wait_until(lambda: lease.read_text(encoding="utf-8") != before)
            (project / "go").touch()
            wait_until(lambda: client.read_flow_run(run.id).state_name == "Completed")


def windows(database: Path) -> list[tuple[str]]:
    """The runs that an automation waits for; the event that begins the window lies in memory until then."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        return connection.execute("SELECT bucketing_key FROM automation_bucket").fetchall()


def test_a_run_that_was_pending_in_a_power_failure_becomes_crashed_and_keeps_no_other_out(
    project: Path, tmp_path: Path
) -> None:
    """That a crashed run is begun again is in tests/test_flows_server.py.

    Here Prefect would wait 15 minutes with it: for the event before, of less than five minutes ago, which the killed server had.
    """
    port = free_port()
    with prefect_server(tmp_path, port=port) as server, client_of(server) as client:
        deploy(server, project)
        automate(server, project)
        run = start(client, "wait/now")
        assert client.set_flow_run_state(run.id, Pending()).status.value == "ACCEPT"  # as a worker does
        wait_until(lambda: windows(tmp_path / "prefect.db"))
        server.process.kill()
    time.sleep(SWEPT)
    with prefect_server(tmp_path, port=port) as server, client_of(server) as client:
        wait_until(lambda: "Crashed" in names_of_states(client, run))
        assert begins(client) == "Pending"


def test_the_user_is_notified_of_a_failure_and_of_a_night_without_a_run(
    project: Path, tmp_path: Path
) -> None:
    with prefect_server(tmp_path) as server, client_of(server) as client, notifications(server) as kept:
        deploy(server, project)
        automate(server, project, "--notify", BLOCK)
        automate(server, project, "--notify", BLOCK)  # once more changes nothing
        absent = "genpipe: retrain/nightly did not run: No run of retrain/nightly has begun for 25 hours."
        wait_until(lambda: any(message.startswith(absent) for message in kept))
        with process_worker(server, project, tmp_path / "worker.log"):
            start(client, "fail/now")
            wait_until(lambda: any(message.startswith("genpipe: fail/now Failed:") for message in kept))
        assert [message for message in kept if "fail/now" in message and "no pencil" in message], kept
        assert sum(message.startswith("genpipe: fail/now Failed:") for message in kept) == 1


@pytest.fixture
def doctor_with_time(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The doctor waits for a busy server, and gives nothing minutes to show."""
    monkeypatch.setattr(doctor_of_server, "PATIENCE", 60)
    for name in ("DEPLOYED", "STUCK"):
        monkeypatch.setattr(doctor_of_server, name, timedelta())
    return monkeypatch


def test_the_doctor_sees_a_scheduler_that_does_not_schedule_and_leases_in_memory(
    project: Path, tmp_path: Path, doctor_with_time: pytest.MonkeyPatch
) -> None:
    port = free_port()
    idle = {
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.memory",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }
    with prefect_server(tmp_path, idle, port) as server:
        doctor_with_time.setenv("PREFECT_API_URL", server.address)
        deploy(server, project, OFTEN)
        found = doctor(project)
        assert found["schedules"].level == "missing"
        assert found["schedules"].found == "the server schedules no run of draw/nightly, draw/often"
        assert "lease_storage.filesystem" in found["leases"].remedy
        assert found["automations"].remedy == "python -m flows.automations"
        automate(server, project)
        assert "--notify" in doctor(project)["automations"].remedy
    with prefect_server(tmp_path, port=port) as server, client_of(server) as client:
        wait_until(lambda: runs_in(client, "draw/nightly", StateType.SCHEDULED))
        wait_until(lambda: runs_in(client, "draw/often", StateType.SCHEDULED))
        found = doctor(project)
        assert found["schedules"].level == "ok"
        assert "leases" not in found
        doctor_with_time.setattr(doctor_of_server, "LATE", timedelta())
        wait_until(lambda: doctor(project)["schedules"].remedy == "prefect worker start --pool local")
        assert "draw/often" in doctor(project)["schedules"].found


def test_what_the_doctor_says_about_a_stuck_run_and_a_full_limit_lets_the_next_run_begin(
    project: Path, tmp_path: Path, doctor_with_time: pytest.MonkeyPatch
) -> None:
    with prefect_server(tmp_path) as server, client_of(server) as client:
        doctor_with_time.setenv("PREFECT_API_URL", server.address)
        deploy(server, project)
        assert {"runs", "limits"}.isdisjoint(doctor(project))
        client.set_flow_run_state(start(client, "wait/now").id, Pending())
        assert begins(client) == "Cancelled"
        follow(server, project, doctor(project)["runs"])
        assert begins(client) == "Pending"
        follow(server, project, doctor(project)["runs"])
        limit = client.read_deployment_by_name("wait/now").global_concurrency_limit
        assert limit is not None
        server.call(project, "global-concurrency-limit", "update", limit.name, "--active-slots", "1")
        assert begins(client) == "Cancelled"
        follow(server, project, doctor(project)["limits"])
        assert begins(client) == "Pending"


def begins(client: SyncPrefectClient) -> str | None:
    """The state of a new run, when a worker has asked for it to be Pending."""
    run = start(client, "wait/now")
    client.set_flow_run_state(run.id, Pending())
    return client.read_flow_run(run.id).state_name
