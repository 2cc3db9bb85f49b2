"""A published commit is whole after a recipe is removed: all that its stages read is declared, or it is not published."""

import sys
from pathlib import Path

import pytest
import yaml

from genpipe.errors import BadState
from tasks.changes import require_clean, require_declared
from tasks.publish import publish
from tests.registered_project import commit_sources
from tests.repository import dvc, run
from tests.test_publish import is_complete

REPORT = """\
  report:
    cmd: find artifacts/models artifacts/metrics -type f | sort > artifacts/report.txt
    deps: [artifacts/models, artifacts/metrics, artifacts/datasets]
    outs: [artifacts/report.txt]
"""


def with_report(root: Path) -> Path:
    """The project with a report that reads whole folders, and a file of code that Git ignores."""
    with (root / "dvc.yaml").open("a") as file:
        file.write(REPORT)
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "/code/local.py\n")
    commit_sources(root, "a report")
    return root


@pytest.fixture
def root(registered_project: Path) -> Path:
    """One with a report, whose first run is published and merged."""
    root = with_report(registered_project)
    dvc(root, "repro", "-q")
    made = publish(root, "first").commit
    run(root, "git", "clean", "-q", "--force", "artifacts/metrics", "dvc.lock")
    run(root, "git", "merge", "-q", made)
    return root


def remove_recipe(root: Path) -> None:
    """Take `nice` out of params.yaml, make `judge` better, and run what is out of date then."""
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    del params["recipes"]["nice"]
    params["recipes"]["judge"]["train"]["network"]["quality"] = 2
    path.write_text(yaml.safe_dump(params | {"promotion": {}}))
    commit_sources(root, "without nice")
    dvc(root, "repro", "-q")


def genpipe(root: Path, *words: str) -> str:
    return run(root, sys.executable, "-m", "genpipe.cli", *words)


def test_a_commit_without_a_removed_recipe_is_complete_elsewhere(root: Path) -> None:
    remove_recipe(root)
    with pytest.raises(BadState) as error:
        publish(root, "second")
    told = "dvc.lock has evaluate@nice, train@nice, which dvc.yaml no longer has; genpipe gc --stages --yes"
    assert told in str(error.value)
    with pytest.raises(BadState, match="genpipe gc --stages --yes"):  # also before anything is run
        require_clean(root, allow_dirty=False)
    lock = (root / "dvc.lock").read_text()
    shown = genpipe(root, "gc", "--stages")
    assert "artifacts/models/nice  (train@nice made it, which dvc.yaml no longer has)" in shown
    assert "artifacts/metrics/nice.json" in shown
    assert (root / "artifacts/models/nice").exists()
    assert (root / "dvc.lock").read_text() == lock
    genpipe(root, "gc", "--stages", "--yes")
    assert [path.name for path in (root / "artifacts/models").iterdir()] == ["judge"]
    assert set(yaml.safe_load((root / "dvc.lock").read_text())["stages"]) == {
        "prepare@digits", "train@judge", "evaluate@judge", "report",
    }  # fmt: skip
    dvc(root, "repro", "-q")
    made = publish(root, "second")
    assert made.branch is not None
    assert run(root, "git", "ls-tree", "--name-only", f"{made.commit}:artifacts/metrics") == "judge.json\n"
    assert is_complete(root, root.parent / "clone", made.branch)
    assert (root.parent / "clone/artifacts/report.txt").read_text().count("nice") == 0
    assert genpipe(root.parent / "clone", "plan").startswith("everything is up to date")


def test_an_output_that_another_stage_makes_now_stays(root: Path) -> None:
    path = root / "dvc.yaml"
    path.write_text(path.read_text().replace("  train:\n", "  fit:\n"))
    commit_sources(root, "another name")
    dvc(root, "repro", "-q")
    genpipe(root, "gc", "--stages", "--yes")
    assert (root / "artifacts/models/nice").exists()
    made = publish(root, "second")
    assert made.branch is not None
    assert is_complete(root, root.parent / "clone", made.branch)


@pytest.mark.parametrize(
    "stray", ["artifacts/models/notes.txt", "artifacts/metrics/mine.json", "code/local.py"]
)
def test_a_file_that_stages_read_and_nobody_else_gets_is_refused_by_name(
    registered_project: Path, stray: str
) -> None:
    root = with_report(registered_project)
    require_declared(root)
    (root / stray).write_text("{}")
    with pytest.raises(BadState, match=f"stages read {stray}, which no stage makes and Git does not track"):
        require_declared(root)


def test_a_commit_that_was_made_in_spite_of_that_says_so(registered_project: Path) -> None:
    root = with_report(registered_project)
    (root / "code/local.py").write_text("two = 2")
    dvc(root, "repro", "-q")
    allowed = publish(root, "second", allow_dirty=True)
    said = run(root, "git", "show", "--no-patch", "--format=%B", allowed.commit)
    assert "Made with uncommitted changes of code/local.py." in said


def test_gc_without_anything_removed_says_so(registered_project: Path) -> None:
    assert genpipe(registered_project, "gc", "--stages", "--yes") == "nothing can go\n"
