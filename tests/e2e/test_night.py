"""A night of the schedule in ten minutes: runs that begin by themselves, on real digits, and what the user is notified of.

pytest tests/e2e/test_night.py
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prefect.client.schemas.objects import StateType

from flows.direct import LEASE
from genpipe import lease
from tests.e2e.conftest import commit, in_production, make_project, output, swap_two_labels, train_less
from tests.e2e.test_schedule import automate, client_of, deploy, runs_in, wait_until
from tests.servers import prefect_server, process_worker
from tests.webhook import BLOCK, notifications

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(3600)]
INTERVAL = 120  # seconds instead of a day
TARGETS = ["evaluate@classifier"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """This project made small, whose nightly run brings one model up to date every two minutes."""
    root = tmp_path / "project"
    root.mkdir()
    make_project(root, ("classifier",), {"workers": 0, "max_parallel": 1})
    plan = yaml.safe_load((root / "prefect.yaml").read_text(encoding="utf-8"))
    named = {each["name"]: each for each in plan["deployments"]}
    named["nightly"]["schedules"] = [{"interval": INTERVAL, "slug": "nightly", "active": True}]
    named["nightly"]["parameters"]["targets"] = TARGETS
    named["data"]["schedules"][0]["active"] = False
    (root / "prefect.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    commit(root, "Every two minutes")
    return root


@contextlib.contextmanager
def between_runs(root: Path) -> Iterator[None]:
    """Hold what a run holds: one that begins meanwhile ends as Busy, and the next does its work."""
    while True:
        with contextlib.suppress(lease.Busy):
            held = lease.hold(root, LEASE)
            break
        time.sleep(0.5)
    with held:
        yield


def test_three_nights_a_first_model_a_better_one_from_new_data_and_a_worse_one_that_is_refused(
    project: Path, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(prefect_server(tmp_path, {"PYTHONPATH": str(project)}))
        client, kept = stack.enter_context(client_of(server)), stack.enter_context(notifications(server))

        def nights() -> list[str]:
            """The names of the runs that did something, which the schedule made; none may fail."""
            assert not runs_in(client, "retrain/nightly", StateType.FAILED)
            done = runs_in(client, "retrain/nightly", StateType.COMPLETED)
            return [run.name for run in done if run.state_name == "Completed"]

        def notified(*words: str) -> bool:
            return any(all(word in message for word in words) for message in kept)

        deploy(server, project)
        automate(server, project, "--notify", BLOCK)
        stack.enter_context(process_worker(server, project, tmp_path / "worker.log"))
        wait_until(lambda: len(nights()) == 1, 900)
        assert in_production(project) == "v0.0.1"
        wait_until(lambda: notified("classifier@v0.0.1 is promoted", "the first in production"))

        with between_runs(project):
            swap_two_labels(project / "data/digits/train-labels-idx1-ubyte")
            output(project, sys.executable, "-m", "dvc", "commit", "--quiet", "--force", "data/digits.dvc")
            commit(project, "Correct a label")
        wait_until(lambda: len(nights()) == 2, 900)
        assert in_production(project) == "v0.0.2"
        wait_until(lambda: notified("classifier@v0.0.2 is promoted"))

        with between_runs(project):
            train_less(project / "params.yaml")
            commit(project, "Train less")
        wait_until(lambda: len(nights()) == 3, 900)
        assert in_production(project) == "v0.0.2"
        wait_until(lambda: notified("classifier is not promoted", "v0.0.2 has", "missed by"))
        runs = runs_in(client, "retrain/nightly", StateType.COMPLETED)
        for run in sorted(runs, key=lambda run: str(run.start_time)):
            print(f"{run.start_time:%H:%M:%S} {run.state_name} in {run.total_run_time.total_seconds():.0f} s")
        print("\n".join(kept))
