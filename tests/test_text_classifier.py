"""The class of a text: features of its own tokens alone, begun with a masked language model, beside naive Bayes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from genpipe.assembly import build
from genpipe.cli import main
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.text_classes import judge_bags
from genpipe.files import read_json
from genpipe.params.project import read_params
from genpipe.report.results import groups
from genpipe.training.checkpoint import load_fitting, read_weights
from tests import tiny

NAME = "text_classifier"
PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(tmp_path):
    return tiny.data_for(NAME, tmp_path)


@pytest.fixture
def model(data):
    return tiny.recipe_of(NAME, data).eval()


def test_features_are_the_mean_over_the_own_tokens(model):
    """Each text alone, without padding, by its mean over time."""
    texts = [[2, 3, 4], [5], [6, 7, 8, 9, 10]]
    padded = torch.tensor([text + [12] * (5 - len(text)) for text in texts])
    found = model.embed({"ids": padded, "lengths": torch.tensor([3, 1, 5])})
    for text, features in zip(texts, found, strict=True):
        alone = model.bert(torch.tensor([text]))[0]
        torch.testing.assert_close(features, alone.mean(0), rtol=1e-5, atol=1e-6)


def test_a_masked_language_model_fills_the_network_and_leaves_the_classes(tmp_path, data):
    """Windows of six tokens, as the longest text of the labelled data: then positions fit too."""
    shape = {"dim": 16, "num_blocks": 2, "num_heads": 2, "pre_norm": True}
    facts = {**data.facts, "time": 6}
    first = build("masked_lm", shape, facts, 3, {})
    weights = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in first.state_dict().items()}, weights)
    second = build(NAME, shape, data.facts, 4, {})
    left = load_fitting(second, weights)
    assert left == ["classes.weight", "classes.bias"]
    known = read_weights(weights)
    for name, tensor in second.state_dict().items():
        if name.startswith("bert."):
            assert torch.equal(tensor, known[name])


def test_the_loss_is_the_cross_entropy_of_the_labels(model, data):
    batch = data.train_batch(1, 0, 8)
    loss = model.cross_entropy(batch)
    share = torch.softmax(model.classify(batch).double(), 1).gather(1, batch["labels"].unsqueeze(1))
    assert loss.value.item() == pytest.approx(-share.log().mean().item(), rel=1e-5)


def test_naive_bayes_is_that_of_counts_by_hand(tmp_path, data, model):
    """Products of (count + 1) / (all + tokens) for each class, compared text by text."""
    texts: dict[int, list[int]] = {0: [], 1: []}
    for x in data.split("train"):
        for ids, length, label in zip(x["ids"], x["lengths"], x["labels"], strict=True):
            texts[int(label)] += ids[:length].tolist()
    number = data.facts["num_tokens"]
    right = []
    for x in data.split("test"):
        for ids, length, label in zip(
            x["ids"].tolist(), x["lengths"].tolist(), x["labels"].tolist(), strict=True
        ):
            scores = [
                sum(math.log((own.count(token) + 1) / (len(own) + number)) for token in ids[:length])
                for own in texts.values()
            ]
            right.append(int(np.argmax(scores)) == label)
    trial = Trial(model, data, "tagged", "test", tmp_path, lambda: None, None, 0)
    assert judge_bags(trial) == {"accuracy_naive_bayes": pytest.approx(np.mean(right))}


def test_the_commands_train_it_from_another_model_and_classify_a_line(tmp_path, capsys):
    """`start:` takes what fits; its answer to a text of one half of the vocabulary is that half."""
    tiny.write_stream(tmp_path / "artifacts/encoded/stream")
    tiny.write_labelled(tmp_path / "artifacts/encoded/labelled")
    first = tiny.block("masked_lm", steps=4) | {"judge": "none"}
    first["train"]["batches"] = {"time": 6}
    first["train"]["network"] = {"dim": 16, "num_blocks": 2, "num_heads": 2, "pre_norm": True}
    second = tiny.block(NAME, steps=60) | {"judge": "none", "start": "models/masked_lm"}
    blocks = {"masked_lm": first, NAME: second}
    datasets = {"tiny": {"kind": "digits", "source": "data/digits"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"datasets": datasets, "recipes": blocks}))
    for name in blocks:
        assert main(["--root", str(tmp_path), "train", name]) == 0
    card = read_json(tmp_path / "artifacts/models" / NAME / "recipe.json")
    assert card["start"]["model"] == "masked_lm"
    capsys.readouterr()
    assert main(["--root", str(tmp_path), "answer", NAME, "天地日", "花鳥春秋"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["low", "high"]


def test_the_attentions_that_are_compared_have_as_many_parameters_as_the_standard_one():
    """Of the blocks alone, within 1 %: the embeddings, most of all parameters, would hide a difference. Each with the same five seeds."""
    params = read_params(PROJECT)
    facts = {"num_tokens": 8, "num_classes": 2, "max_length": 64}
    sizes: dict[str, list[int]] = {}
    kinds = set()
    for group in groups(PROJECT, params, params.sets["attentions"]):
        for name in group.members:
            block = params.recipes[name]
            assert block.train.batches == {"max_length": facts["max_length"]}
            made = build(block.model, block.train.network, facts, 1, {})
            sizes.setdefault(group.name, []).append(sum(p.numel() for p in made.bert.blocks.parameters()))
            attention = made.bert.blocks[0].attention
            kinds.add((attention.kinds, attention.key_size, attention.before is not None, group.name))
        seeds = [params.recipes[name].train.seed or params.seed for name in group.members]
        assert sorted(seeds) == [1, 2, 3, 4, 5], group.name
    assert kinds == {
        (("product",), 32, False, "dynasty"),
        (("product",), 64, False, "dynasty_key_size"),
        (("product",), 32, True, "dynasty_talking"),
        (("dense",), 0, False, "dynasty_dense"),
        (("random",), 0, False, "dynasty_random"),
    }
    (standard,) = set(sizes["dynasty"])
    for name, found in sizes.items():
        assert len(set(found)) == 1, name
        assert abs(found[0] / standard - 1) <= 0.01, name


def test_the_attentions_differ_from_the_standard_one_by_attention_and_width_alone():
    params = read_params(PROJECT)
    standard = params.recipes["dynasty"].model_dump()
    for name in params.sets["attentions"]:
        block = params.recipes[name].model_dump()
        for key in ("key_size", "talking_heads", "attention", "hidden_dim"):
            block["train"]["network"].pop(key, None)
        block["train"]["seed"] = standard["train"]["seed"]
        assert block == standard, name
