"""One recipe of each kind of data, through the command line from training to the report, and the laws of its capabilities."""

import json

import pytest
import torch
import yaml

from genpipe.capabilities import Decodes, Encodes
from genpipe.cli import main
from genpipe.errors import BadInput
from genpipe.metrics import find
from genpipe.sampling import decoding
from genpipe.sampling.draw import conditions, draw, first
from genpipe.sampling.text import marks_of
from tests import reference, tiny
from tests.reference import registered

__all__ = ["registered"]
pytestmark = pytest.mark.usefixtures("registered")
WRITTEN = {  # the first panel, and a metric
    "conditional_vae": ("grid.png", "reconstruction_mse"),
    "plane_flow": ("points.tsv", "nats_per_point"),
    "stream_model": ("texts.txt", "nats_per_token"),
    "translator": ("texts.txt", "nats_per_token"),
    "sentences": ("neighbours.tsv", "unseen.top_1"),
    "tagger": ("tags.tsv", "tag_accuracy"),
}


def project(root, name):
    """A project with one recipe, its data written."""
    tiny.data_for(name, root)
    (root / "data").mkdir()
    blocks = {name: tiny.block(name) | {"judge": "none"}}
    values = {
        "cluster": {"workers": 0},
        "datasets": {"tiny": {"kind": "text", "source": "data"}},
        "recipes": blocks,
    }
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    return ["--root", str(root)]


@pytest.mark.parametrize("name", reference.REFERENCE)
def test_a_recipe_of_each_kind_goes_from_training_to_the_report(name, tmp_path, capsys):
    root = project(tmp_path, name)
    for words in (["train", name], ["sample", name], ["evaluate", name], ["report"]):
        assert main([*root, *words]) == 0, capsys.readouterr().err
    panels = json.loads((tmp_path / f"artifacts/samples/{name}/panels.json").read_text())
    metrics = json.loads((tmp_path / f"artifacts/metrics/{name}.json").read_text())
    shown, measured = WRITTEN[name]
    assert panels[0]["file"] == shown
    assert measured in metrics
    assert all(find(key) for key in metrics)
    page = (tmp_path / "artifacts/report/index.html").read_text()
    assert panels[0]["caption"] in page


def model_and_data(name, root):
    data = tiny.data_for(name, root)
    return tiny.recipe_of(name, data).eval(), data


def test_a_sample_depends_on_the_seed_its_number_and_its_condition(tmp_path):
    model, data = model_and_data("conditional_vae", tmp_path)
    given = conditions(model, data, 120)
    few = draw(model, 3, 5, {key: value[:3] for key, value in given.items()})["images"]
    many = draw(model, 120, 5, given)["images"]
    changed = draw(model, 3, 5, {"labels": 1 - given["labels"][:3]})["images"]
    assert torch.equal(few, many[:3])
    assert not torch.equal(few, changed)


def test_a_condition_that_is_missing_or_not_taken_is_one_line(tmp_path, capsys):
    for name, given, words in (
        ("conditional_vae", {}, "takes the condition 'labels', which is missing"),
        ("plane_flow", {"labels": torch.zeros(3)}, "does not take the condition 'labels'; it takes: none"),
    ):
        model, _ = model_and_data(name, tmp_path)
        with pytest.raises(BadInput, match=words):
            draw(model, 3, 0, given)


def test_an_unknown_sampling_option_is_one_line_and_leaves_nothing(tmp_path, capsys):
    root = project(tmp_path, "conditional_vae")
    assert main([*root, "train", "conditional_vae"]) == 0
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("scale: 0.5", "scal: 0.5"))
    assert main([*root, "sample", "conditional_vae"]) == 2
    assert (
        "sample.how.scal: not an option of ConditionalVAE.sample; its options: scale"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "artifacts/samples").exists() or not list(
        (tmp_path / "artifacts/samples").iterdir()
    )


@pytest.mark.parametrize("name", ["stream_model", "translator"])
def test_the_next_token_depends_on_those_before_it_only(name, tmp_path):
    """Logits at a place are the same whatever tokens come later."""
    model, data = model_and_data(name, tmp_path)
    given = conditions(model, data, 4)
    texts = torch.randint(2, 12, (2, 4, 6))
    texts[1, :, :3] = texts[0, :, :3]
    logits = []
    for ids in texts:
        state = model.begin(given, 4)
        steps = []
        for column in ids.T:
            step, state = model.next(column, state)
            steps.append(step)
        logits.append(torch.stack(steps, 1))
    assert torch.equal(logits[0][:, :3], logits[1][:, :3])
    assert not torch.allclose(logits[0][:, 3:], logits[1][:, 3:])


@pytest.mark.parametrize(("name", "answer"), [("tagger", "tag"), ("sentences", "embed")])
def test_padding_and_neighbours_do_not_change_an_answer(name, answer, tmp_path):
    model, data = model_and_data(name, tmp_path)
    x = first(data, 6)
    together = getattr(model, answer)(x)
    for row in range(6):
        length = int(x["lengths"][row])
        alone = getattr(model, answer)(
            {"ids": x["ids"][row : row + 1, :length], "lengths": x["lengths"][row : row + 1]}
        )
        kept = together[row][:length] if answer == "tag" else together[row]
        assert torch.allclose(kept, alone[0], atol=1e-6)


@pytest.mark.parametrize("method", ["greedy", "nucleus", "beam"])
def test_a_decoded_text_has_no_mark_in_it_and_nothing_after_its_end(method, tmp_path):
    model, data = model_and_data("translator", tmp_path)
    marks, given = marks_of(dict(data.facts)), conditions(model, data, 5)
    with torch.no_grad():
        made = decoding.write(model, 5, given, marks, method, 8)
    for row, length in zip(made["ids"], made["lengths"].tolist(), strict=True):
        assert not set(row[:length].tolist()) & set(marks)
        assert set(row[length:].tolist()) <= {marks.pad}


def test_a_beam_of_one_is_greedy_and_a_full_beam_finds_the_most_likely_text(tmp_path):
    model, data = model_and_data("translator", tmp_path)
    marks, given = marks_of(dict(data.facts)), conditions(model, data, 5)

    def score(ids):
        state, newest, total = model.begin(given, 5), torch.full((5,), marks.start), torch.zeros(5)
        over = torch.zeros(5, dtype=torch.bool)
        for column in ids.T:
            logits, state = model.next(newest, state)
            newest = column.where(column != marks.pad, torch.tensor(marks.end))
            gain = decoding.without(logits, marks).log_softmax(-1).gather(1, newest.unsqueeze(1)).squeeze(1)
            total = total + gain.masked_fill(over, 0)
            over = over | (newest == marks.end)
        return total

    with torch.no_grad():
        greedy, one, wide = (
            decoding.write(model, 5, given, marks, method, 2, beam=beam)["ids"]
            for method, beam in (("greedy", 1), ("beam", 1), ("beam", 15))
        )
        assert torch.equal(greedy, one)
        assert (score(wide) >= score(greedy) - 1e-6).all()


def test_codes_of_conditional_images_have_the_right_shapes(tmp_path):
    model, data = model_and_data("conditional_vae", tmp_path)
    assert isinstance(model, Encodes)
    assert isinstance(model, Decodes)
    x = {**first(data, 5), "images": torch.rand(5, 1, tiny.SIDE, tiny.SIDE)}
    assert model.decode(model.encode(x), x)["images"].shape == x["images"].shape


@pytest.mark.parametrize("name", sorted(set(reference.REFERENCE) - {"conditional_vae", "plane_flow"}))
def test_four_slices_give_the_gradients_of_one(name, tmp_path):
    """Also where a slice has fewer target tokens than another; the VAE draws noise."""
    tiny.require_gradients_of_one(name, "nll", tmp_path)
