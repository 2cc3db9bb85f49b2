"""dvc.yaml names all the code that a stage's output depends on, and a run is keyed by the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from genpipe.experiment import WEIGHTS_DEPEND_ON
from genpipe.upkeep.declared import ENTRANCES, check, dependencies, modules_of, stages_of, undeclared

PROJECT = Path(__file__).resolve().parents[1]
STAGES = stages_of(PROJECT)


def test_every_stage_is_looked_at():
    assert ENTRANCES.keys() == STAGES.keys()


@pytest.mark.parametrize("stage", ENTRANCES)
def test_a_stage_declares_the_code_that_it_runs(stage):
    assert not undeclared(stage, dependencies(STAGES[stage]))


@pytest.mark.parametrize("stage", ENTRANCES)
def test_code_is_missed_when_it_is_not_declared(stage):
    code = [path for path in dependencies(STAGES[stage]) if path.startswith("genpipe/")]
    needed = [path for path in code if undeclared(stage, [other for other in code if other != path])]
    assert needed, "no dependency of this stage is known to matter"


def test_all_of_a_package_is_looked_at():
    judges = {
        f"genpipe.evaluation.{path.stem}" for path in (PROJECT / "genpipe/evaluation").glob("[a-z]*.py")
    }
    assert judges <= modules_of("evaluate")


def test_a_run_is_keyed_by_what_train_declares():
    code = {
        path.removeprefix("genpipe/") for path in dependencies(STAGES["train"]) if path.startswith("genpipe/")
    }
    assert code - {"models/${item.model}.py"} == set(WEIGHTS_DEPEND_ON)


def test_nothing_is_found_in_this_project():
    assert check(PROJECT) == [], "with raw data or, as in a fresh clone, without"


@pytest.mark.parametrize(
    ("line", "changed", "complaint"),
    [
        (
            "genpipe/corpus, genpipe/params/blocks.py",
            "genpipe/params/blocks.py",
            "count imports genpipe.corpus.",
        ),
        ("        - genpipe/nn\n", "", "train imports genpipe.nn."),
        ("        - genpipe/models/${item.model}.py\n", "", "train imports genpipe.models"),
        ("genpipe/report\n", "genpipe/reports\n", "genpipe/reports: report needs it and it is missing"),
        ("cmd: genpipe report", "cmd: python report.py", "what `python report.py` imports is not known"),
    ],
)
def test_genpipe_check_names_what_is_not_declared(line, changed, complaint, tmp_path):
    text = (PROJECT / "dvc.yaml").read_text(encoding="utf-8")
    assert line in text
    (tmp_path / "dvc.yaml").write_text(text.replace(line, changed), encoding="utf-8")
    for name in ("params.yaml", "requirements.lock", "genpipe"):
        (tmp_path / name).symlink_to(PROJECT / name)
    for words in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(words, cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "genpipe.cli", "check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert complaint in done.stdout
    assert not (tmp_path / ".grimp_cache").exists(), "a check writes nothing"
