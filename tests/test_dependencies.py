"""dvc.yaml names all the code that a stage's output depends on, and a run is keyed by the same."""

from pathlib import Path

import grimp
import pytest
import yaml

from genpipe.experiment import WEIGHTS_DEPEND_ON
from genpipe.graph import read_plan

PROJECT = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

ENTRANCES = {
    "prepare": {"genpipe.sources.datasets"},
    "count": {"genpipe.corpus.counting", "genpipe.corpus.actors"},
    "vocabulary": {"genpipe.corpus.vocabulary"},
    "encode": {"genpipe.corpus.encoding"},
    "train": {"genpipe.assembly", "genpipe.training.export"},
    "sample": {"genpipe.sampling.showing", "genpipe.data.opening"},
    "evaluate": {
        f"genpipe.evaluation.{path.stem}"
        for path in (PROJECT / "genpipe/evaluation").glob("*.py")
        if path.stem != "__init__"
    },
    "report": {"genpipe.report.page"},
}
WITHOUT_EFFECT = {  # on what a result is: they write, complain, show, or read the file of parameters
    "genpipe",
    "genpipe.errors",
    "genpipe.files",
    "genpipe.lease",
    "genpipe.progress",
    "genpipe.params",
    "genpipe.params.project",
    "genpipe.params.cluster",
}


def declared(stage: str) -> list[str]:
    return (STAGES[stage].get("do") or STAGES[stage])["deps"]


def test_every_stage_is_looked_at():
    assert ENTRANCES.keys() == STAGES.keys()


@pytest.mark.parametrize("stage", ENTRANCES)
def test_a_stage_declares_the_code_that_it_runs(stage):
    graph = grimp.build_graph("genpipe")
    used = set(ENTRANCES[stage])
    for entrance in ENTRANCES[stage]:
        used |= graph.find_upstream_modules(entrance)
    if any(name.startswith("genpipe.models.") for name in used):
        assert "genpipe/models/${item.model}.py" in declared(stage)
    missing = {
        name
        for name in used - WITHOUT_EFFECT
        if not name.startswith("genpipe.models")
        and not (stage == "report" and name.startswith("genpipe.params"))
        and not any(covers(path, name) for path in declared(stage))
    }
    assert not missing


def covers(path: str, module: str) -> bool:
    name = path.removesuffix(".py").replace("/", ".")
    return module == name or module.startswith(f"{name}.")


def test_a_run_is_keyed_by_what_train_declares():
    code = {path.removeprefix("genpipe/") for path in declared("train") if path.startswith("genpipe/")}
    assert code - {"models/${item.model}.py"} == set(WEIGHTS_DEPEND_ON)


def test_every_declared_file_is_there():
    assert not [problem for problem in read_plan(PROJECT).problems if "genpipe/" in problem]
