"""The retrain flow when it publishes: a real Prefect server, real Git and DVC repositories."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.states import State
from prefect.testing.utilities import prefect_test_harness

from flows.direct import main
from flows.retrain import retrain
from genpipe.registry.tags import read_model
from tests.registered_project import branches, commit_sources, rerun, tags, write_params
from tests.repository import run

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=300):
        yield


@pytest.fixture
def root(registered_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(registered_project)
    return registered_project


def run_flow(**parameters: Any) -> State:
    return retrain(**parameters, return_state=True)  # pyright: ignore[reportCallIssue]


def production(root: Path) -> str | None:
    version = read_model(root, "nice").production()
    return version.name if version else None


def verdicts() -> str:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["promotion"]))
        )
    return str(max(found, key=lambda artifact: str(artifact.created)).data) if found else ""


def announced(outcome: str) -> dict[str, str]:
    """Models and versions that events tell of, each with the reason."""
    wanted = {"filter": {"event": {"name": [f"genpipe.model.{outcome}"]}, "order": "ASC"}}
    with get_client(sync_client=True) as client:
        events = client._client.post("/events/filter", json=wanted).json()["events"]
    return {event["resource"]["prefect.resource.name"]: event["payload"]["why"] for event in events}


def reason(outcome: str, name: str) -> str:
    """Why the event of this outcome says it happened; the event may take a moment to arrive."""
    deadline = time.monotonic() + 600
    while name not in (found := announced(outcome)):
        assert time.monotonic() < deadline, "no event"
        time.sleep(0.2)
    return found[name]


def test_a_run_is_published_and_promoted_and_a_worse_one_is_published_only(root: Path) -> None:
    assert run_flow(publish=True).is_completed()
    assert production(root) == "v0.0.1"
    (branch,) = branches(root.parent / "remote.git")
    assert "the first in production" in verdicts()
    assert "the first in production" in reason("promoted", "nice@v0.0.1")

    again = run_flow(publish=True)
    assert (again.type.value, again.name) == ("COMPLETED", "UpToDate")
    assert branches(root) == [branch]

    write_params(root, nice=0.9)
    commit_sources(root, "a worse model")
    state = run_flow(publish=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Completed")
    assert production(root) == "v0.0.1"
    assert (
        "bits_per_dim is 4.1, v0.0.1 has 4: a gain of -0.1, must be at least 0.1 (missed by 0.2)"
        in verdicts()
    )
    assert "missed by 0.2" in reason("refused", "nice")
    assert len(branches(root.parent / "remote.git")) == 2
    assert run_flow(publish=True).name == "UpToDate"


def test_a_run_that_ended_before_its_publishing_is_published_by_the_next_though_nothing_is_stale(
    root: Path,
) -> None:
    """The template's stages have run; nobody has published them."""
    state = run_flow(publish=True)
    assert (state.name, state.message) == ("Completed", "5 stages are up to date and published")
    assert len(branches(root.parent / "remote.git")) == 1


def test_without_publish_no_branch_and_no_tag_is_made(root: Path) -> None:
    write_params(root, nice=2)
    assert run_flow().is_completed()
    assert (branches(root), tags(root)) == ([], [])


def test_uncommitted_changes_are_refused_before_a_stage_runs(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(root, nice=2)
    before = (root / "dvc.lock").read_bytes()
    state = run_flow(publish=True)
    assert state.is_failed()
    assert "uncommitted changes, and there are params.yaml" in str(state.message)
    assert main(["--publish"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (root / "dvc.lock").read_bytes() == before
    assert run_flow(publish=True, allow_dirty=True).is_completed()
    assert production(root) == "v0.0.1"


def test_a_remote_that_fails_fails_the_flow_in_one_line_and_keeps_the_results(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(root.parent / "remote.git", root.parent / "away.git")
    assert main(["--publish"]) == 1
    told = capsys.readouterr().err
    assert "is not pushed: git fetch: " in told
    assert told.splitlines()[-1].endswith("nothing is lost: the same command again publishes it")
    assert production(root) is None
    shutil.move(root.parent / "away.git", root.parent / "remote.git")
    assert main(["--publish"]) == 0
    assert production(root) == "v0.0.1"


def test_the_command_publishes_once_and_then_needs_no_prefect(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rerun(root, nice=2)
    assert main(["--publish"]) == 0
    assert production(root) == "v0.0.1"
    monkeypatch.setattr(
        "flows.direct.run_flow", lambda name, **asked: pytest.fail(f"Prefect was started for {name}, {asked}")
    )
    assert main(["--publish"]) == 0
    assert "everything is up to date" in capsys.readouterr().out
    assert main(["--allow-dirty"]) == 2
    assert "--allow-dirty: valid beside --publish only" in capsys.readouterr().err


def test_deployments_publish_and_a_newcomer_s_run_does_not() -> None:
    deployments = yaml.safe_load((HERE / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    retraining = [d for d in deployments if d["entrypoint"] == "flows/retrain.py:retrain"]
    assert len(retraining) >= 2
    assert all(deployment["parameters"]["publish"] is True for deployment in retraining)
    assert "--publish" not in (HERE / "Makefile").read_text(encoding="utf-8")


def test_a_clean_clone_of_the_published_branch_is_up_to_date(root: Path) -> None:
    assert run_flow(publish=True).is_completed()
    (branch,) = branches(root.parent / "remote.git")
    run(root.parent, "git", "clone", "-q", "--branch", branch, "remote.git", "clone")
    assert (root.parent / "clone/artifacts/metrics/nice.json").exists()
    assert run(root.parent / "clone", "git", "tag", "--list").split() == ["nice#prod#1", "nice@v0.0.1"]
