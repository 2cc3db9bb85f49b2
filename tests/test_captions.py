"""Texts under features of images: the model, its data, its judge, and the way from drawings to a caption on the command line."""

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from genpipe.assembly import build, load_trained
from genpipe.cli import main
from genpipe.data.opening import open_data
from genpipe.errors import BadInput
from genpipe.evaluation import captions as judge
from genpipe.evaluation.judge import Trial
from genpipe.features import features_of
from genpipe.files import read_json
from genpipe.graph import read_plan
from genpipe.models.conditional_lm import ConditionalLM
from genpipe.nn.pixels import scaled
from genpipe.params.project import check_params
from genpipe.sampling.captions import MARGIN, SIDE, captions, draw_captions
from genpipe.sampling.showing import Showing
from genpipe.sampling.text import Speller, speller_in
from tests import tiny
from tests.repository import make_repository
from tests.test_drawings import some_emoji, write_emoji

PROJECT = Path(__file__).resolve().parents[1]
START, END, PAD = 5, 6, 4
FACTS = {"num_tokens": 9, "start": START, "end": END, "pad": PAD, "sep": 7, "mask": 8, "max_length": 3}
NAME = "conditional_lm_vector"


# the model


def model(**facts: Any) -> ConditionalLM:
    """In double precision; the maps of the condition, which start at zero, are moved."""
    small = {"width": 8, "num_blocks": 2, "num_heads": 2, "condition_dim": 4}
    made = build("conditional_lm", small, {**FACTS, "vector_dim": 3, **facts}, 0).double().eval()
    assert isinstance(made, ConditionalLM)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def x(text: list[int], vector: list[float]) -> dict[str, Tensor]:
    ids = torch.tensor([text], dtype=torch.int64).reshape(1, len(text))
    return {"ids": ids, "lengths": torch.tensor([len(text)]), "vector": torch.tensor([vector]).double()}


def log_prob(made: ConditionalLM, texts: dict[str, Tensor]) -> float:
    with torch.no_grad():
        return float(made.log_prob(texts).sum())


def test_the_probabilities_of_all_texts_under_a_vector_are_one_together() -> None:
    made, others = model(), [i for i in range(9) if i != END]
    for vector in ([1.0, -2.0, 0.5], [0.0, 0.0, 0.0]):
        texts = (list(text) for size in range(4) for text in itertools.product(others, repeat=size))
        assert sum(math.exp(log_prob(made, x(text, vector))) for text in texts) == pytest.approx(1, abs=1e-12)


def test_the_condition_is_a_map_of_the_standardised_vector() -> None:
    """By hand: neither the scale of a vector nor a number that is added to all of it counts, and nothing is left of zeros but the bias."""
    made, vector = model(), np.array([1.0, -2.0, 4.0])
    standard = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
    assert made.vector is not None
    weight, bias = (p.detach().numpy() for p in (made.vector.weight, made.vector.bias))
    found = made.condition(x([1], vector.tolist())).detach().numpy()[0]
    np.testing.assert_allclose(found, weight @ standard + bias, rtol=1e-9)
    wide = [
        log_prob(made, x([1, 2], (scale * vector + shift).tolist())) for scale, shift in ((1e3, 0), (2e3, 9))
    ]
    assert wide[0] == pytest.approx(wide[1], abs=1e-9)
    np.testing.assert_array_equal(made.condition(x([1], [0.0] * 3)).detach().numpy()[0], bias)


def test_classes_and_a_vector_add_up() -> None:
    made = model(conditions={"form": ["a", "b"]})
    assert made.given == ("form", "vector")
    one = {**x([1, 2], [1.0, -2.0, 0.5]), "form": torch.tensor([1])}
    assert made.vector is not None
    own = made.vector(torch.nn.functional.layer_norm(one["vector"], (3,)))
    torch.testing.assert_close(made.condition(one), made.classes["form"].weight[1:] + own)


def test_what_a_model_of_classes_begins_with_does_not_depend_on_vectors() -> None:
    """So weights of models of classes are those from before there were vectors."""
    facts = {**FACTS, "conditions": {"form": ["a", "b"]}}
    plain, other = (
        build("conditional_lm", {"width": 8, "num_heads": 2}, f, 3)
        for f in (facts, {**facts, "vector_dim": 3})
    )
    known = other.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in plain.state_dict().items())
    assert known.keys() - plain.state_dict().keys() == {"vector.weight", "vector.bias"}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "'vector' is missing; it takes: vector"),
        ({"vector": torch.zeros(1, 2)}, r"vectors of 3 numbers, not of \[2\]"),
    ],
)
def test_a_vector_that_is_missing_or_of_another_size_is_one_line(
    given: dict[str, Tensor], error: str
) -> None:
    with pytest.raises(BadInput, match=error):
        model().begin(given, 1)


def test_it_learns_to_look_at_the_vector(tmp_path: Path) -> None:
    """The first character of a text is that of the largest number of its vector."""
    data = tiny.data_for(NAME, tmp_path)
    trainer = tiny.trainer_of(NAME, data, tmp_path / "run", steps=150, checkpoint_every=150)
    trainer.fit()
    recipe: Any = trainer.recipe.eval()
    found = judge.judge_captions(trial_of(recipe, data, tmp_path))
    assert found["vector_gap"] > 1
    assert found["nats_per_token_shuffled"] > found["nats_per_token_zero"]
    rows = next(iter(data.split("test")))
    made = judge.captions(trial_of(recipe, data, tmp_path), rows["vector"], 3)
    assert (
        np.mean([row[:1] == [2 + int(v.argmax())] for row, v in zip(made, rows["vector"], strict=True)]) > 0.9
    )


# the judge


def trial_of(recipe: Any, data: Any, samples: Path, speller: Speller | None = None) -> Trial:
    unused: Any = None
    return Trial(recipe, data, "captions", "test", samples, unused, speller, 0)


class Scripted:
    """Writes the text of a table for the first number of a vector."""

    given = ("vector",)

    def __init__(self, table: dict[float, list[int]], end: int, num_tokens: int) -> None:
        self.table, self.end, self.num_tokens = table, end, num_tokens

    def begin(self, given: dict[str, Tensor], n: int) -> tuple[Tensor, Tensor]:
        return given["vector"][:, 0], torch.zeros(n, dtype=torch.int64)

    def next(self, ids: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        firsts, step = state
        texts = [[*self.table[first], self.end] for first in firsts.tolist()]
        newest = torch.tensor(
            [text[min(i, len(text) - 1)] for text, i in zip(texts, step.tolist(), strict=True)]
        )
        return 50.0 * torch.nn.functional.one_hot(newest, self.num_tokens).float(), (firsts, step + 1)


class ScriptedWithNats(Scripted, judge.LogProb):
    """A text costs as many nats as the first number of its vector, squared."""

    def log_prob(self, x: dict[str, Tensor]) -> Tensor:
        return -x["vector"][:, 0].square()


def test_the_judge_compares_with_what_is_counted_by_hand(tmp_path: Path) -> None:
    """Four test rows: right; a word too much; an unknown word, which is never right; nothing in common."""
    size = len(tiny.TOKENS)
    texts = {"train": [[2, 3], [2, 3], [4]], "test": [[2, 3], [4], [0, 5], [6]]}
    vectors = {
        "train": [[1, 0, -1], [5, 9, 1], [0, 1, 0]],
        "test": [[1, 0, 0], [2, 9, 2], [3, -9, 3], [4, 9, 0.5]],
    }
    tiny.write_json(tmp_path / "vocabulary.json", tiny.TOKENS)
    for split, own in texts.items():
        tiny.write_texts(tmp_path, split, "text", [np.array(text) for text in own])
        np.save(tmp_path / f"{split}.vector.npy", np.array(vectors[split], np.float32))
    data = open_data(tiny.describe(tmp_path, "captions", tiny.token_facts(vector_dim=3, max_length=2)))
    scripted = {1.0: [2, 3], 2.0: [4, 7], 3.0: [0, 5], 4.0: [8], 0.0: [4]}
    recipe = ScriptedWithNats(scripted, size + 2, size + 5)
    found = judge.judge_captions(trial_of(recipe, data, tmp_path, Speller(tiny.TOKENS, True)))
    assert found["caption_f1"] == pytest.approx((1 + 2 / 3 + 1 / 2 + 0) / 4)
    assert found["caption_match"] == 1 / 4
    # written under the vector of the row before: 8 for 2 3, 2 3 for 4, 4 7 for unknown 5, unknown 5 for 6
    assert found["caption_f1_shuffled"] == 0
    assert found["caption_f1_zero"] == found["caption_match_zero"] == 1 / 4
    assert found["caption_match_majority"] == found["caption_match_constant"] == 1 / 4
    # nearest without scale: rows 1 and 4 have (2 3), (4 9 0.5) is (5 9 1) nearly; (2 9 2) is (0 1 0); (3 -9 3) is far from all
    assert judge.nearest(*(torch.tensor(vectors[split]).float() for split in ("test", "train"))).tolist()[
        :2
    ] == [0, 2]
    number = 6 + 4
    assert found["vector_gap"] == 0, "the same nats in another order"
    assert found["nats_per_token_shuffled"] == pytest.approx((1 + 4 + 9 + 16) / number)
    assert found["nats_per_token_zero"] == 0
    assert (found["distinct_captions"], found["distinct_captions_real"], found["caption_num_texts"]) == (
        1,
        1,
        4,
    )


def test_the_nearest_vector_is_that_of_the_standardised_ones() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 3, (20, 5)), rng.normal(1, 2, (30, 5))
    standard = [
        (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-5) for v in (one, other)
    ]
    expected = [int(np.argmin([np.sum((a - b) ** 2) for b in standard[1]])) for a in standard[0]]
    assert judge.nearest(torch.tensor(one), torch.tensor(other)).tolist() == expected


def test_the_constant_caption_shares_most_with_all_of_the_training() -> None:
    rng = np.random.default_rng(0)
    texts = [sorted({*rng.integers(0, 9, 1 + i % 5).tolist()}) for i in range(40)]
    means = [np.mean([2 * len({*a} & {*b}) / (len(a) + len(b)) for b in texts]) for a in texts]
    assert judge.most_common(texts) == int(np.argmax(means))


def test_an_unknown_word_of_a_baseline_is_not_right(tmp_path: Path) -> None:
    """Test names are mostly new words: a caption of unknown words would share them all."""
    trial = trial_of(None, None, tmp_path, Speller(tiny.TOKENS, True))
    assert judge.words(trial, [0, 3]) == ["□", tiny.TOKENS[3]]
    assert judge.f1(judge.words(trial, [0, 0], written=True), [judge.words(trial, [0, 0])]) == 0


# the picture


def test_the_picture_has_each_image_enlarged_at_its_place() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    made = np.asarray(draw_captions(images, [("a", "b"), ("", "c" * 400), *[("long " * 40, "d")] * 3]))
    for place in range(5):
        row, column = divmod(place, 3)
        top = row * (SIDE + 2 * MARGIN) + MARGIN
        left = column * (made.shape[1] // 3) + MARGIN
        shown = made[top : top + SIDE : SIDE // 8, left : left + SIDE : SIDE // 8]
        assert np.array_equal(np.moveaxis(shown, -1, 0), images[place])
        right = made[top : top + SIDE, left + SIDE : left + made.shape[1] // 3 - MARGIN]
        assert (right < 255).any()
        assert (right[:, -MARGIN:] == 255).all(), "no text runs into the next image"


def test_shorter_texts_of_another_chunk_end_where_they_end(tmp_path: Path) -> None:
    """A hundred short names and a longer one: rows are read by the hundred, and the first hundred are widened."""
    directory = tiny.write_captions(tmp_path / "data")
    texts = [*[[2, 6]] * 100, [3, 6, 7]]
    tiny.write_texts(directory, "test", "text", texts)
    np.save(directory / "test.vector.npy", np.zeros((101, 4), np.float32))
    np.save(tmp_path / "texts.npy", np.full((101, 3), tiny.token_facts()["pad"]))
    showing = Showing(None, speller_in(directory), tmp_path, open_data(directory), "captions", 101, 0, {})
    list(captions(showing))
    rows = (tmp_path / "written.tsv").read_text(encoding="utf-8").splitlines()[1:]
    spelled = ["".join(tiny.TOKENS[i] for i in text) for text in texts]
    assert [row.split("\t")[1].replace(" ", "") for row in rows] == spelled


# from drawings to captions


COLOURS = {"": "red", "-1F3FB": "blue"}


def named(records: list[dict[str, str]]) -> list[dict[str, str]]:
    return [
        {**r, "annotation": f"{COLOURS[r['hexcode'].removeprefix(r['base'])]} {r['group']}"} for r in records
    ]


def params(**features: str) -> dict[str, Any]:
    common = {"source": "drawings", "image_size": 8, "resvg": "0.5.0", "test_share": 0.3}
    corpus = {
        "dataset": "names",
        "files": ["train.jsonl"],
        "tokenizer": "word",
        "tokenizer_file": "artifacts/none",
    }
    classifier = tiny.block("classifier", steps=40) | {"data": "datasets/pictures", "judge": "none"}
    captions = tiny.block(NAME, steps=60) | {"data": "features/names", "judge": "none"}
    return {
        "seed": 1,
        "numerics": "native",
        "cluster": {"workers": 0, "executor": "local"},
        "datasets": {"pictures": {"kind": "emoji", **common}, "names": {"kind": "emoji_names", **common}},
        "corpora": {"names": corpus},
        "encodings": {
            "names": {"dataset": "names", "corpus": "names", "kind": "stream", "fields": {"text": "text"}}
        },
        "features": {
            "names": {"encoding": "names", "dataset": "names", "model": "models/classifier", **features}
        },
        "lexicons": {},
        "recipes": {"classifier": classifier, "captions": captions},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("captions")
    write_emoji(root, named(some_emoji()))
    (root / "params.yaml").write_text(yaml.safe_dump(params()))
    for words in (
        ("prepare", "pictures"), ("prepare", "names"), ("count", "--corpus", "names"), ("vocabulary", "names"), ("encode", "names"),
        ("train", "classifier"), ("features", "names"), ("train", "captions"), ("sample", "captions"), ("evaluate", "captions"),
    ):  # fmt: skip
        assert main(["--root", str(root), *words]) == 0, words
    return root


def test_names_lie_in_the_rows_and_on_the_sides_of_the_pictures(project: Path) -> None:
    """So the model of pictures was trained on no picture of the test; the colour of the drawing is that of its name."""
    for split in ("train", "test"):
        pictures, names = (project / "artifacts/datasets" / name for name in ("pictures", "names"))
        images = np.load(names / f"{split}_images.npy")
        assert np.array_equal(np.load(pictures / f"{split}_images.npy"), images)
        lines = [yaml.safe_load(line) for line in (names / f"{split}.jsonl").read_text().splitlines()]
        labels = np.load(pictures / f"{split}_labels.npy")
        classes = read_json(pictures / "data.json")["facts"]["classes"]
        assert [line["group"] for line in lines] == [classes[label] for label in labels]
        for line, image in zip(lines, images, strict=True):
            colour = "red" if image[2].min() < 200 else "blue"  # all else that is drawn is blue, or white
            assert line["text"] == f"{colour} {line['group']}"
        assert not (names / f"{split}_labels.npy").exists()


def test_of_equal_drawings_the_first_name_counts(tmp_path: Path) -> None:
    records = named(some_emoji())
    again = [{**record, "hexcode": f"9{record['hexcode']}", "annotation": "second"} for record in records]
    write_emoji(tmp_path, [*records, *again])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params()))
    assert main(["--root", str(tmp_path), "prepare", "names"]) == 0
    written = [
        yaml.safe_load(line)["text"]
        for split in ("train", "test")
        for line in (tmp_path / f"artifacts/datasets/names/{split}.jsonl").read_text().splitlines()
    ]
    assert sorted(written) == sorted(record["annotation"] for record in records)


def test_the_vectors_are_the_features_of_the_model(project: Path) -> None:
    out, found = project / "artifacts/features/names", load_trained(project / "artifacts/models/classifier")
    facts = read_json(out / "data.json")["facts"]
    recipe: Any = found.recipe
    for split in ("train", "test"):
        images = np.load(project / f"artifacts/datasets/names/{split}_images.npy")
        with torch.no_grad():
            singly = [
                recipe.embed({"images": torch.tensor(image[None]) / 255})[0].numpy() for image in images
            ]
        np.testing.assert_allclose(np.load(out / f"{split}.vector.npy"), singly, rtol=1e-4, atol=1e-5)
    assert (facts["vector_dim"], facts["features_of"]) == (16, "classifier")
    assert open_data(out).facts["max_length"] == 2


def test_a_model_of_codes_gives_its_codes(tmp_path: Path) -> None:
    data = tiny.data_for("aae", tmp_path)
    recipe: Any = tiny.recipe_of("aae", data).eval()
    images = scaled(next(iter(data.split("test")))["images"])
    from genpipe.assembly import Trained

    with torch.no_grad():
        codes = recipe.encode({"images": images})
    assert torch.equal(features_of(Trained(recipe, "images", data.facts), images, "here"), codes)
    with pytest.raises(BadInput, match=r"here takes images of \(1, 8, 8\), and these have \(1, 4, 4\)"):
        features_of(Trained(recipe, "images", data.facts), images[:, :, :4, :4], "here")
    with pytest.raises(BadInput, match="here finds no features in images"):
        features_of(Trained(recipe, "points", {}), images, "here")


def test_the_samples_and_the_metrics_are_those_of_captions(project: Path) -> None:
    samples = project / "artifacts/samples/captions"
    assert [row["file"] for row in read_json(samples / "panels.json")] == [
        "texts.txt",
        "grid.png",
        "written.tsv",
        "attention.png",
    ]
    head, *rows = (samples / "written.tsv").read_text().splitlines()
    assert head == "written\treal"
    real = [
        yaml.safe_load(line)["text"]
        for line in (project / "artifacts/datasets/names/test.jsonl").read_text().splitlines()
    ]
    assert [row.split("\t")[1] for row in rows] == real[: len(rows)]
    with Image.open(samples / "grid.png") as picture:
        assert picture.mode == "RGB"
    metrics = read_json(project / "artifacts/metrics/captions.json")
    assert {
        "caption_f1",
        "caption_f1_nearest",
        "caption_f1_shuffled",
        "caption_f1_zero",
        "caption_f1_majority",
        "nats_per_token",
    } <= metrics.keys()
    assert metrics["vector_gap"] == pytest.approx(
        metrics["nats_per_token_shuffled"] - metrics["nats_per_token"], abs=1e-4
    )


def test_a_picture_of_ones_own_is_answered_with_a_caption(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caption of a test picture in a file is that of the same picture as data."""
    test = np.load(project / "artifacts/datasets/names/test_images.npy")
    files = []
    for number, image in enumerate(test[:3]):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(np.moveaxis(image, 0, -1).copy()).save(files[-1])
    capsys.readouterr()
    answer = ["--root", str(project), "answer", "captions", *files, "--how", "method=greedy"]
    assert main(answer) == 0
    rows = (project / "artifacts/samples/captions/written.tsv").read_text().splitlines()[1:4]
    assert capsys.readouterr().out.splitlines() == [row.split("\t")[0] for row in rows]


def test_captions_need_the_very_model_whose_features_were_learnt(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = tmp_path / "models/captions"
    shutil.copytree(project / "artifacts/models/captions", captions)
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(file)
    assert main(["answer", str(captions), str(file)]) == 2
    assert (
        "models/classifier: no trained model there; captions need the model classifier"
        in capsys.readouterr().err
    )
    own = project / "artifacts/models/classifier"
    assert main(["answer", str(captions), str(file), "--how", f"encoder={own}"]) == 0
    other = tmp_path / "models/classifier"
    shutil.copytree(own, other)
    tensors = (other / "weights.safetensors").read_bytes()
    (other / "weights.safetensors").write_bytes(tensors[:-1] + bytes([tensors[-1] ^ 1]))
    assert main(["answer", str(captions), str(file)]) == 2
    assert "not the weights of classifier that the captions were trained on" in capsys.readouterr().err
    assert main(["sample", str(captions), "--given", "vector=1", "--out", str(tmp_path / "drawn")]) == 2
    assert "vector: not written by hand; genpipe answer captions PICTURE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"model": "models/none_such"},
            r"features\.names\.model: no 'none_such' \(has: classifier, captions\)",
        ),
        ({"encoding": "other"}, r"features\.names\.encoding: no 'other' \(has: names\)"),
        ({"dataset": "other"}, r"features\.names\.dataset: no 'other' \(has: pictures, names\)"),
        (
            {"model": "models/captions"},
            "its training would need itself, by start, validator or features: captions ← captions",
        ),
    ],
)
def test_what_a_block_of_features_names_must_be_there(change: dict[str, str], error: str) -> None:
    with pytest.raises(BadInput, match=error):
        check_params(params(**change))


def test_texts_and_images_of_other_rows_are_refused(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns(".genpipe"))
    place = root / "artifacts/datasets/names/test_images.npy"
    np.save(place, np.load(place)[1:])
    before = (root / "artifacts/features/names/data.json").read_bytes()
    assert main(["--root", str(root), "features", "names"]) == 2
    assert "features.names: test: " in capsys.readouterr().err
    assert (root / "artifacts/features/names/data.json").read_bytes() == before


def test_the_graph_has_captions_after_the_model_of_pictures(tmp_path: Path) -> None:
    """DVC itself resolves dvc.yaml: captions are trained on features, and these need the model, the pictures and the texts."""
    make_repository(tmp_path)
    for name in ("dvc.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy2(PROJECT / name, tmp_path / name)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params()))
    upstream = {stage.name: set(stage.upstream) for stage in read_plan(tmp_path).stages}
    assert upstream["features@names"] >= {"train@classifier", "encode@names", "prepare@names"}
    assert "features@names" in upstream["train@captions"]
