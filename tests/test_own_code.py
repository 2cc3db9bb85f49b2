"""DVC hashes the code of a project, so that is the code which runs: in worktrees, experiments, second clones, workers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from genpipe import own_code
from genpipe.errors import BadState
from tests.repository import as_somebody, commit, make_repository, run

HERE = Path(__file__).parent.parent
GRAPH = """\
stages:
  count:
    cmd: genpipe count words.txt --tokenizer whitespace --workers {workers} {executor} --out counts.parquet
    deps: [words.txt, genpipe]
    outs: [counts.parquet]
"""
COUNTED = {
    "whitespace": ["ab", "cd"],
    "characters": ["a", "b", "c", "d"],
}  # by our code, and by that of the copy


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in Git and DVC whose genpipe cuts text at whitespace as ours does."""
    (tmp_path / "project").mkdir()
    root = make_repository(tmp_path / "project")
    shutil.copytree(HERE / "genpipe", root / "genpipe", ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text("__pycache__/\n/.genpipe/\n")
    (root / ".dvcignore").write_text("__pycache__\n")
    (root / "params.yaml").write_text("datasets: {}\n")
    (root / "words.txt").write_text("ab cd ab cd\n")
    write_graph(root)
    commit(root, "begin")
    return root


def write_graph(root: Path, workers: int = 0, executor: str = "") -> None:
    (root / "dvc.yaml").write_text(GRAPH.format(workers=workers, executor=executor))


def change_code(root: Path) -> None:
    """From now on the project's code cuts text into characters."""
    path = root / "genpipe/corpus/tokenizers.py"
    before = path.read_text()
    path.write_text(before.replace('"whitespace": _cut_at_space', '"whitespace": _cut_characters'))
    assert path.read_text() != before


def counted(root: Path) -> list[str]:
    return sorted(pq.read_table(root / "counts.parquet")["token"].to_pylist())


def repro(root: Path) -> list[str]:
    run(root, sys.executable, "-m", "dvc", "repro", "--no-commit", "--no-run-cache")
    return counted(root)


def test_a_stage_in_a_worktree_runs_the_code_of_the_worktree(project: Path, tmp_path: Path) -> None:
    worktree = tmp_path / "worktree"
    run(project, "git", "worktree", "add", "-q", str(worktree), "-b", "other")
    change_code(worktree)
    assert repro(worktree) == COUNTED["characters"]
    assert repro(project) == COUNTED["whitespace"]


@pytest.mark.parametrize("how", [["--temp"], ["--queue"]])
def test_an_experiment_of_dvc_runs_the_code_of_its_workspace(project: Path, how: list[str]) -> None:
    change_code(project)
    commit(project, "characters")
    dvc = [sys.executable, "-m", "dvc", "exp"]
    run(project, *dvc, "run", *how, "--name", "tried")
    if how == ["--queue"]:
        run(project, *dvc, "run", "--run-all")
    run(project, *dvc, "apply", "tried")
    run(project, sys.executable, "-m", "dvc", "checkout")
    assert counted(project) == COUNTED["characters"]


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_workers_of_a_stage_run_the_code_of_its_project(project: Path, executor: str) -> None:
    change_code(project)
    write_graph(project, 2, f"--executor {executor}")
    assert repro(project) == COUNTED["characters"]


def by_hand(root: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [Path(sys.executable).parent / "genpipe", *words]
    return subprocess.run(
        command, cwd=root, env={**as_somebody(), **environment}, capture_output=True, text=True, timeout=300
    )


def test_a_command_by_hand_refuses_other_code_in_one_line(project: Path) -> None:
    words = ("count", "words.txt", "--tokenizer", "whitespace", "--workers", "0", "--out", "counts.parquet")
    assert by_hand(project, *words).returncode == 0  # a copy with the same content is the same code
    (project / "counts.parquet").unlink()
    change_code(project)
    refused = by_hand(project, *words)
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        f"genpipe: {project} has its own genpipe, and what was imported is other"
    )
    assert refused.stderr.count("\n") == 1
    assert not (project / "counts.parquet").exists()
    assert by_hand(project, *words, PYTHONPATH=str(project)).returncode == 0
    assert counted(project) == COUNTED["characters"]


def test_a_flow_refuses_other_code_in_one_line(project: Path) -> None:
    change_code(project)
    flow = [sys.executable, "-P", "-m", "flows.retrain"]
    refused = subprocess.run(flow, cwd=project, env=as_somebody(), capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f"{project} has its own genpipe" in refused.stderr


def test_a_project_without_code_of_its_own_has_nothing_to_check(tmp_path: Path) -> None:
    (tmp_path / "genpipe").mkdir()  # a folder of that name is no package
    own_code.require(tmp_path, *own_code.PARTS)
    own_code.become(tmp_path, ["plan"])


def test_a_worker_with_other_code_is_refused_by_name() -> None:
    own_code.require_same(own_code.digest())
    with pytest.raises(BadState, match="is not the code of the process that gives it work"):
        own_code.require_same("0" * 64)


def test_the_digest_is_that_of_the_content_wherever_it_lies(project: Path) -> None:
    before = own_code.digest.__wrapped__(project / "genpipe")
    assert before == own_code.digest()
    (project / "genpipe/notes.txt").write_text("no code")
    assert own_code.digest.__wrapped__(project / "genpipe") == before
    change_code(project)
    assert own_code.digest.__wrapped__(project / "genpipe") != before
