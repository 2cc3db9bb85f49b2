"""Sets of recipes in params.yaml: what a flow runs of them, and what it says of names that are not there."""

from pathlib import Path

import pytest
import yaml

from flows.direct import main, prepare, targets_of
from genpipe.errors import BadInput
from genpipe.params.project import read_params
from tests.small_project import make_project


def with_sets(root: Path, sets) -> Path:
    path = root / "params.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "sets": sets}))
    return root


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    made = make_project(tmp_path / "project")
    monkeypatch.chdir(made)
    return made


def test_a_set_is_its_recipes_with_all_they_need(root):
    first, *others = read_params(root).recipes
    assert others
    with_sets(root, {"quick": [first]})
    targets = targets_of(root, None, "quick")
    assert targets == [f"evaluate@{first}"]
    planned = {stage.name for stage in prepare(root, targets, None)[1].stages}
    assert {f"train@{first}", f"evaluate@{first}"} <= planned
    assert not planned & {f"train@{other}" for other in others}


def test_stages_come_besides_a_set_and_without_either_all_are_run(root):
    first, *_ = read_params(root).recipes
    with_sets(root, {"quick": [first]})
    assert targets_of(root, ["prepare"], "quick") == ["prepare", f"evaluate@{first}"]
    assert targets_of(root, None, None) is None


def test_an_unknown_set_is_one_line(root, capsys):
    first, *_ = read_params(root).recipes
    with_sets(root, {"quick": [first]})
    assert main(["--set", "quik"]) == 2
    said = capsys.readouterr().err.strip()
    assert "no 'quik' in sets of params.yaml; it has: quick" in said
    assert len(said.splitlines()) == 1


def test_a_set_of_unknown_or_no_recipes_is_refused_by_name(root):
    with pytest.raises(BadInput, match=r"sets\.quick: no recipe 'nobody'"):
        read_params(with_sets(root, {"quick": ["nobody"]}))
    with pytest.raises(BadInput, match=r"sets\.quick"):
        read_params(with_sets(root, {"quick": []}))
