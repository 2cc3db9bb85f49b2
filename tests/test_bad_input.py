"""Bad input of a project: one clear line, exit status 2, and the project as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from genpipe.cli import main
from genpipe.files import hash_of
from tests import tiny

Change = Callable[[Path], object]
IMAGES, PAIRS = "artifacts/encoded/images", "artifacts/encoded/pairs"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with tiny data, a folder of text, and one trained model."""
    root = tmp_path_factory.mktemp("template")
    recipes = {name: tiny.block(name) for name in ("classifier", "ogan", "couplet")}
    for name in recipes:
        tiny.data_for(name, root)
    (root / "data").mkdir()
    (root / "data/a.txt").write_text("天地日月\n山水花鳥\n", encoding="utf-8")
    datasets = {"tiny": {"kind": "text", "source": "data"}}
    values = {"cluster": {"workers": 0}, "datasets": datasets, "recipes": recipes}
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    for words in (["prepare", "tiny"], ["train", "ogan"]):
        assert main(["--root", str(root), *words]) == 0
    return root


def params(change: Callable[[dict[str, Any]], object]) -> Change:
    """A change of params.yaml."""

    def write(root: Path) -> None:
        values = yaml.safe_load((root / "params.yaml").read_text())
        change(values)
        (root / "params.yaml").write_text(yaml.safe_dump(values))

    return write


def recipe(name: str, **values: Any) -> Change:
    """Other values in the block of a recipe; those of `train` are added to what is there."""
    train = values.pop("train", {})
    return params(lambda p: (p["recipes"][name].update(values), p["recipes"][name]["train"].update(train)))


def described(directory: str, **values: Any) -> Change:
    """Other values in the data.json of a directory."""

    def write(root: Path) -> None:
        path = root / directory / "data.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return write


def encoding(**block: Any) -> Change:
    """A block of `encodings`, and a corpus for it."""
    corpus = {"dataset": "tiny", "files": ["documents.jsonl"], "field": "text", "tokenizer": "char"}
    return params(
        lambda p: p.update(
            corpora={"c": corpus}, encodings={"e": {"dataset": "tiny", "corpus": "c", **block}}
        )
    )


def promotion(**rule: Any) -> Change:
    return params(lambda p: p.update(promotion={"ogan": [rule]}))


def empty(root: Path) -> None:
    """No test images."""
    for name in ("images", "labels"):
        path = root / IMAGES / f"test_{name}.npy"
        np.save(path, np.load(path)[:0])


TEXT_AS_DATA = recipe("classifier", data="datasets/tiny")
CASES: dict[str, tuple[Change, str, str]] = {
    "a kind of data set that there is not": (
        params(lambda p: p["datasets"]["tiny"].update(kind="pictures")),
        "prepare tiny",
        "params.yaml: datasets.tiny: kind: there is no 'pictures', only: digits, image_folder, hugging_face, ",
    ),
    "a kind of encoding that there is not": (
        encoding(kind="images", fields={"text": "text"}),
        "encode e",
        "params.yaml: encodings.e.kind: Input should be 'stream', 'pairs', 'passages', 'groups' or 'tagged', not",
    ),
    "the fields of another kind": (
        encoding(kind="pairs", fields={"text": "text"}),
        "encode e",
        "params.yaml: encodings.e: fields: the kind pairs has the fields source and target, not text",
    ),
    "a kind in data.json that there is not": (
        described(IMAGES, kind="pictures"),
        "train classifier",
        f"{IMAGES}: data of the kind 'pictures' cannot be trained on, only of the kinds images, points",
    ),
    "text that is not encoded": (
        TEXT_AS_DATA,
        "train classifier",
        "datasets/tiny: data of the kind 'text' cannot be trained on",
    ),
    "images for a model of text": (
        params(lambda p: (p["recipes"]["couplet"].update(data="encoded/images"), p["recipes"]["couplet"]["train"].pop("batches"))),
        "train couplet",
        "Couplet needs data with num_tokens, and the data has: image_shape, num_classes, num_images; name other",
    ),
    "text for a model of images": (
        recipe("ogan", data="encoded/pairs"),
        "train ogan",
        "the data must be images or points; name other data",
    ),
    "an option of batches that images do not have": (
        recipe("classifier", train={"batches": {"time": 3}}),
        "train classifier",
        "train.batches.time: not an option of the kind images, which takes: validation",
    ),
    "an option of batches that pairs do not have": (
        recipe("couplet", train={"batches": {"align": True}}),
        "train couplet",
        "train.batches.align: not an option of the kind pairs, which takes: aligned, max_length",
    ),
    "a value of an option of batches that cannot be": (
        recipe("couplet", train={"batches": {"aligned": "maybe"}}),
        "train couplet",
        "train.batches.aligned: Input should be a valid boolean",
    ),
    "a split without examples": (
        empty,
        "train classifier",
        f"{IMAGES}: the split test is empty; add examples to its source",
    ),
    "no split to judge on": (
        described(IMAGES, splits=["train"]),
        "train classifier",
        "no split 'test' to judge a model on, it has: train; set datasets.*.test_share",
    ),
    "no split to train on": (
        described(IMAGES, splits=["test"]),
        "train classifier",
        f"{IMAGES}: no split 'train', it has: test",
    ),
    "data of text without its vocabulary": (
        lambda root: (root / PAIRS / "vocabulary.json").unlink(),
        "train couplet",
        f"{PAIRS}/vocabulary.json: no such file or directory; run the stage that makes it again",
    ),
    "a model without the facts of its data": (
        lambda root: (root / "artifacts/models/ogan/data.json").unlink(),
        "sample ogan",
        "models/ogan/data.json: no such file or directory; this model does not have the facts of its data",
    ),
    "an option that the model does not sample with": (
        recipe("ogan", judge="none", sample={"num": 4, "how": {"heat": 1}}),
        "sample ogan",
        "sample.how.heat: not an option of OGAN.sample; its options: none",
    ),
    "an option that the model will not sample with, before it is trained": (
        recipe("ogan", sample={"num": 4, "how": {"heat": 1}}),
        "train ogan",
        "recipes.ogan.sample.how.heat: not an option of OGAN.sample; its options: none",
    ),
    "an option that lines will not be searched with, before the model is trained": (
        recipe("couplet", sample={"num": 4, "how": {"heat": 1}}),
        "train couplet",
        "recipes.couplet.sample.how.heat: not an option of search; its options: ",
    ),
    "a metric in promotion that there is not": (
        promotion(metric="fid", min_gain=1),
        "train ogan",
        "params.yaml: promotion.ogan.0: metric: no metric 'fid'; there is: accuracy, ",
    ),
    "a metric in promotion of which neither more nor less is better": (
        promotion(metric="shared_character", bound=1),
        "train ogan",
        "params.yaml: promotion.ogan.0: metric: neither more nor less of 'shared_character' is better; take one",
    ),
    "a metric in promotion the wrong way round": (
        promotion(metric="accuracy", direction="minimise", bound=1),
        "train ogan",
        "params.yaml: promotion.ogan.0: direction: accuracy is to maximise, not to minimise; take direction out",
    ),
    "a set with a recipe that there is not": (
        params(lambda p: p.update(sets={"quick": ["nice"]})),
        "report",
        "params.yaml: sets.quick: no recipe 'nice' (has: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_changes_nothing(case, template, tmp_path, capsys):
    change, words, line = CASES[case]
    root = tmp_path / "project"
    shutil.copytree(template, root)
    (root / "artifacts/samples").mkdir()
    change(root)
    capsys.readouterr()
    before = contents(root)
    assert main(["--root", str(root), *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (said,) = err.splitlines()
    assert line in f"{said}\n"
    assert contents(root) == before


def contents(root: Path) -> dict[str, str]:
    """The hash of each file and the name of each directory, but for the locks that any command takes."""
    paths = (path for path in root.rglob("*") if "leases" not in path.parts)
    return {str(path): hash_of([path], root) if path.is_file() else "" for path in paths}
