"""A recipe begins with the weights of another one, where they fit, and its run and its card know of them."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from genpipe.cli import main
from genpipe.errors import BadInput
from genpipe.training.checkpoint import load_fitting, save_weights
from tests import tiny


class Recipe(torch.nn.Module):
    def __init__(self, width: int, head: str):
        super().__init__()
        self.body = torch.nn.Linear(2, width)
        self.add_module(head, torch.nn.Linear(width, 1))


def test_what_fits_by_name_and_shape_is_taken_over_and_the_rest_is_named(tmp_path):
    torch.manual_seed(0)
    parent, child = Recipe(3, "head"), Recipe(3, "tags")
    (tmp_path / "w").mkdir()
    save_weights(parent.state_dict(), tmp_path / "w/weights.safetensors")
    own = child.tags.weight.clone()
    assert load_fitting(child, tmp_path / "w/weights.safetensors") == ["tags.weight", "tags.bias"]
    assert torch.equal(child.body.weight, parent.body.weight)
    assert torch.equal(child.tags.weight, own)
    with pytest.raises(BadInput, match="no tensor of it has a name and a shape of Recipe"):
        load_fitting(Recipe(4, "tags"), tmp_path / "w/weights.safetensors")


@pytest.fixture
def project(tmp_path):
    """Two classifiers, the second of which begins with the first."""
    data = tiny.DATA["images"](tmp_path / "artifacts/encoded/images")
    assert data.is_dir()
    write(tmp_path)
    return tmp_path


def write(root, **changed):
    first = tiny.block("classifier") | {"judge": "none"}
    second = first | {"start": "models/first"} | changed
    params = {
        "cluster": {"workers": 0},
        "datasets": {},
        "recipes": {"first": first, "second": second},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def train(root, name, *words):
    return main(["--root", str(root), "train", name, *words])


def weights(root, name):
    return load_file(root / "artifacts/models" / name / "weights.safetensors")


def test_a_training_begins_with_the_weights_of_its_start(project, capsys):
    assert train(project, "second") == 2
    assert "no such file or directory" in (complaint := capsys.readouterr().err)
    assert "models/first" in complaint
    assert train(project, "first") == 0
    assert train(project, "second") == 0
    said = capsys.readouterr().out
    assert "second: begins with the weights of first; not in them: nothing" in said
    card = json.loads((project / "artifacts/models/second/recipe.json").read_text())
    assert card["start"]["model"] == "first"
    assert card["start"]["sha256"] in (project / "artifacts/models/second/card.md").read_text()
    first, second = weights(project, "first"), weights(project, "second")
    write(project, start="none")
    assert train(project, "second") == 0
    anew = weights(project, "second")
    assert any(not torch.equal(anew[name], second[name]) for name in anew), "the start makes other weights"
    assert all(torch.equal(anew[name], first[name]) for name in anew), "else both are the same training"


def test_other_weights_of_the_start_are_another_run(project, capsys):
    assert train(project, "first") == 0
    assert train(project, "second") == 0
    before = weights(project, "second")
    assert train(project, "second") == 0
    assert "finished already" in capsys.readouterr().out
    path = project / "artifacts/models/first/weights.safetensors"
    save_weights({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    assert train(project, "second") == 0
    assert "finished already" not in capsys.readouterr().out
    after = weights(project, "second")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_training_does_not_replace_what_it_starts_from(project, capsys):
    assert train(project, "first") == 0
    before = weights(project, "first")
    assert train(project, "second", "--out", str(project / "artifacts/models/first")) == 2
    assert "artifacts/models/first" in capsys.readouterr().err
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(project, "first").items())


def test_a_start_without_a_common_tensor_is_refused_before_anything_is_written(project, capsys):
    assert train(project, "first") == 0
    nice = tiny.block("nice") | {"judge": "none", "start": "models/first"}
    write(project, **nice)
    assert train(project, "second") == 2
    assert "so nothing can be taken over" in capsys.readouterr().err
    assert not (project / "artifacts/models/second").exists()
