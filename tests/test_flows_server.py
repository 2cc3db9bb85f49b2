"""Deployments, triggers and automations of prefect.yaml on a real server with a real worker, on a small project.

pytest tests/test_flows_server.py -m e2e
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.repository import run
from tests.servers import UNSCHEDULED, Prefect, prefect_server, process_worker
from tests.small_project import PARAMS, TRAIN, make_project, started, write_data, write_params

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1800)]
HERE = Path(__file__).resolve().parent.parent
SHORT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
WITHIN = 75  # seconds without a heartbeat, instead of 540


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for name in ("flows", "tasks", "genpipe"):
        (root / name).symlink_to(HERE / name)
    deployments = (
        HERE / "prefect.yaml"
    ).read_text()  # when a run starts is shown here, what it publishes elsewhere
    (root / "prefect.yaml").write_text(deployments.replace("publish: true", "publish: false"))
    text = (HERE / "deploy/prefect/automations.yaml").read_text()
    assert "within: 540" in text
    (root / "deploy/prefect").mkdir(parents=True)
    (root / "deploy/prefect/automations.yaml").write_text(text.replace("within: 540", f"within: {WITHIN}"))
    make_project(root)
    run(root, "git", "rm", "-q", "--cached", "flows", "tasks", "genpipe")
    return root


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    settings = {**UNSCHEDULED, **SHORT, "PYTHONPATH": str(project)}
    with prefect_server(tmp_path_factory.mktemp("prefect"), settings) as server:
        server.call(project, "work-pool", "create", "local", "--type", "process")
        server.call(project, "deploy", "--all")
        automations = [sys.executable, "-m", "flows.automations"]
        subprocess.run(automations, cwd=project, env=server.environment, check=True)
        yield server


@pytest.fixture
def client(server: Prefect) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: server.address}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def worker(server: Prefect, project: Path, tmp_path: Path) -> Iterator[psutil.Process]:
    with process_worker(server, project, tmp_path / "worker.log"):
        yield worker_process()


def worker_process() -> psutil.Process:
    children = psutil.Process().children()
    (found,) = [child for child in children if "worker" in child.cmdline()]
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + 4 * seconds  # a busy machine is no failure
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def latest(client: SyncPrefectClient) -> FlowRun:
    return client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)[0]


def state_of(client: SyncPrefectClient, run_id: object) -> str:
    state = client.read_flow_run(run_id).state  # pyright: ignore[reportArgumentType]
    return state.name if state else ""


def states_of(client: SyncPrefectClient, flow_run: FlowRun) -> list[str]:
    return [state.name or "" for state in client.read_flow_run_states(flow_run.id)]


def runs_of(client: SyncPrefectClient, deployment: str) -> list[FlowRun]:
    found = client.read_deployment_by_name(deployment)
    newest_first = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    return [each for each in newest_first if each.deployment_id == found.id]


def start(server: Prefect, project: Path, deployment: str) -> None:
    server.call(project, "deployment", "run", deployment)


def flow_process(project: Path, stage: str) -> psutil.Process:
    """The process of the flow whose stage runs: the one above dvc and its guard, or above the warm process that forks for stages."""
    pid = next(int(path.name.rsplit("-")[1]) for path in project.glob(f"pids/{stage}-*") if running(path))
    above = psutil.Process(pid).parents()
    ours = ("guard.py", "warm_process.py")
    guards = [
        number for number, each in enumerate(above) if any(word.endswith(ours) for word in each.cmdline())
    ]
    return above[guards[-1] + 1]


def running(path: Path) -> bool:
    return psutil.pid_exists(int(path.name.rsplit("-")[1]))


def begin_training(project: Path, server: Prefect, steps: int) -> psutil.Process:
    """Run the manual deployment with a training that does not end by itself; the process of its flow."""
    (project / "seconds.txt").write_text("600")
    nice = {**PARAMS["recipes"]["nice"], "train": {**TRAIN, "steps": steps}}
    write_params(project, recipes={**PARAMS["recipes"], "nice": nice})
    start(server, project, "retrain/manual")
    wait_until(lambda: training(project), 120)
    return flow_process(project, "train@nice")


def training(project: Path) -> bool:
    return any(running(path) for path in project.glob("pids/train@nice-*"))


def let_it_finish(project: Path) -> None:
    (project / "seconds.txt").write_text("0")


def test_every_deployment_has_its_limit_its_tag_and_its_trigger(client: SyncPrefectClient) -> None:
    found = {deployment.name: deployment for deployment in client.read_deployments()}
    assert set(found) == {"nightly", "manual", "on-new-data", "data"}
    names = [
        "retrain/nightly",
        "retrain/on-new-data",
        "retrain/manual",
        "watch/data",
        "corpus/manual",
        "sweep/manual",
        "backfill/manual",
        "evaluate/manual",
    ]
    for name in names:
        deployment = client.read_deployment_by_name(name)
        assert deployment.tags == ["genpipe"]
        assert deployment.global_concurrency_limit is not None
        assert deployment.global_concurrency_limit.limit == 1
        assert str(deployment.concurrency_options.collision_strategy.value) == "CANCEL_NEW"
    assert [
        schedule.schedule.cron for schedule in client.read_deployment_by_name("retrain/nightly").schedules
    ] == ["0 3 * * *"]


def test_new_data_starts_a_retraining_once_and_a_second_event_of_the_change_does_not(
    project: Path, server: Prefect, client: SyncPrefectClient, worker: psutil.Process
) -> None:
    watch = [sys.executable, "-m", "flows.watch"]
    look = lambda: (
        subprocess.run(
            watch, cwd=project, env=server.environment, check=True, capture_output=True, text=True
        ).stdout
    )
    assert look() == ""  # it remembers
    before = len(runs_of(client, "retrain/on-new-data"))
    write_data(project, "4 5 6\n")
    pending = project / ".genpipe/watch/change.json"
    assert look() == "announced: data.dvc, data/numbers.txt\n"
    wait_until(lambda: len(runs_of(client, "retrain/on-new-data")) == before + 1, 60)
    wait_until(lambda: state_of(client, runs_of(client, "retrain/on-new-data")[0].id) == "Completed", 120)
    assert "train@nice" in started(project)
    # killed after the server had the event, before that was written down: the event is sent again
    events = project / ".genpipe/watch"
    announced = (events / "announced.json").read_text()
    assert not pending.exists()
    write_data(project, "7 8\n")
    program = (
        "import os, pathlib; from tasks.events import send; from tasks.watching import announce, look\n"
        "root = pathlib.Path.cwd()\n"
        "def send_and_die(change): send(change); os.kill(os.getpid(), 9)\n"
        "announce(root, look(root), send_and_die)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project, env=server.environment)
    assert done.returncode == -9
    assert (events / "announced.json").read_text() == announced
    assert look() == "announced: data.dvc, data/numbers.txt\n"
    wait_until(lambda: len(runs_of(client, "retrain/on-new-data")) == before + 2, 60)
    time.sleep(5)
    assert len(runs_of(client, "retrain/on-new-data")) == before + 2
    wait_until(lambda: latest(client).state.is_final(), 120)  # pyright: ignore[reportOptionalMemberAccess]


def test_a_nightly_run_on_unchanged_data_ends_as_up_to_date_and_starts_nothing(
    project: Path, server: Prefect, client: SyncPrefectClient, worker: psutil.Process
) -> None:
    server.call(project, "deployment", "run", "retrain/manual", "--watch")
    begun = list(project.glob("pids/*"))
    server.call(project, "deployment", "run", "retrain/nightly", "--watch")
    flow_run = latest(client)
    assert flow_run.state is not None
    assert (flow_run.state.type.value, flow_run.state.name) == ("COMPLETED", "UpToDate")
    assert list(project.glob("pids/*")) == begun, "no stage was started"


def test_of_two_deployments_in_one_checkout_the_second_ends_as_busy(
    project: Path, server: Prefect, client: SyncPrefectClient, worker: psutil.Process
) -> None:
    begin_training(project, server, 20)
    start(server, project, "retrain/nightly")
    wait_until(lambda: state_of(client, runs_of(client, "retrain/nightly")[0].id) == "Busy", 60)
    nightly = runs_of(client, "retrain/nightly")[0]
    assert nightly.state is not None
    assert nightly.state.is_cancelled()
    assert "retrain is being run by process" in str(nightly.state.message)
    start(server, project, "retrain/manual")  # of one deployment, the server itself refuses the second
    wait_until(lambda: "Cancelled" in states_of(client, runs_of(client, "retrain/manual")[0]), 60)
    let_it_finish(project)
    wait_until(lambda: not training(project), 60)
    wait_until(lambda: "Completed" in states_of(client, runs_of(client, "retrain/manual")[1]), 60)


def test_a_flow_killed_under_its_worker_is_started_again_once(
    project: Path, server: Prefect, client: SyncPrefectClient, worker: psutil.Process
) -> None:
    begin_training(project, server, 30).kill()
    flow_run = runs_of(client, "retrain/manual")[0]
    wait_until(lambda: states_of(client, flow_run).count("Running") == 2, 90)
    assert "Crashed" in states_of(client, flow_run)
    assert "AwaitingRetry" in states_of(client, flow_run)
    wait_until(lambda: training(project), 60)
    flow_process(project, "train@nice").kill()
    wait_until(lambda: states_of(client, flow_run).count("Crashed") == 2, 90)
    wait_until(lambda: not training(project), 30)
    time.sleep(10)
    assert state_of(client, flow_run.id) == "Crashed"
    let_it_finish(project)
    server.call(project, "deployment", "run", "retrain/manual", "--watch")
    assert state_of(client, runs_of(client, "retrain/manual")[0].id) == "Completed"


def test_a_run_whose_machine_died_becomes_crashed_by_its_heartbeat_and_is_started_again(
    project: Path, server: Prefect, client: SyncPrefectClient, tmp_path: Path
) -> None:
    with process_worker(server, project, tmp_path / "worker.log"):
        flow = begin_training(project, server, 40)
        worker_process().kill()  # first, so that nobody is left to say what became of the flow
        flow.kill()
        killed_at = time.monotonic()
    flow_run = runs_of(client, "retrain/manual")[0]
    assert state_of(client, flow_run.id) == "Running"
    wait_until(lambda: "Crashed" in states_of(client, flow_run), WITHIN)
    print(f"Crashed after {time.monotonic() - killed_at:.0f} seconds")
    wait_until(lambda: state_of(client, flow_run.id) == "AwaitingRetry", 30)
    let_it_finish(project)
    with process_worker(server, project, tmp_path / "worker.log"):
        wait_until(lambda: state_of(client, flow_run.id) == "Completed", 90)
    assert (project / "artifacts/metrics/nice.json").exists()
