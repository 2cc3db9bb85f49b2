"""Files that genpipe reads and somebody has changed: one line each, and no other file is opened."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genpipe.assembly import build
from genpipe.cli import main
from genpipe.data.opening import open_data
from genpipe.errors import BadState, GenpipeError
from genpipe.files import write_json
from genpipe.training.checkpoint import save_weights
from genpipe.using.model import opened
from tests import tiny

LONG = 5_000  # characters, more than any name may have
CODEC = {"tokenizer": "char", "normalise": [], "tokenizer_file": None}
BPE = {"tokenizer": "bpe", "normalise": []}
SIZE = len(tiny.TOKENS)
FACTS = tiny.token_facts(max_length=5)
OTHER_SPECIAL = {name: FACTS[name] for name in FACTS if name != "pad"}


def of_pairs(**facts: Any) -> dict[str, Any]:
    """data.json of pairs with other facts."""
    return {"kind": "pairs", "splits": ["train", "test"], "facts": {**FACTS, **facts}}


# a file of data of ids or of the model that was trained on them, what it holds, and a part of the line
OF_IDS: list[tuple[str, Any, str]] = [
    ("codec.json", [], "are missing"),
    ("codec.json", "char", "are missing"),
    ("codec.json", CODEC | {"tokenizer": "chars"}, "tokenizer: one of jieba"),
    ("codec.json", CODEC | {"tokenizer": ["char"]}, "tokenizer: one of jieba"),
    ("codec.json", CODEC | {"normalise": "nfc"}, "normalise: a list with some of nfc"),
    ("codec.json", CODEC | {"normalise": [{}]}, "normalise: a list with some of nfc"),
    ("codec.json", CODEC | {"tokenizer_file": "tokenizer.json"}, "tokenizer_file: None for char"),
    ("codec.json", CODEC | {"tokenizer_file": 0}, "tokenizer_file: None for char"),
    ("codec.json", BPE | {"tokenizer_file": None}, "tokenizer_file: tokenizer.json for bpe, not None"),
    ("codec.json", BPE | {"tokenizer_file": "../secret"}, "tokenizer_file: tokenizer.json for bpe"),
    ("codec.json", BPE | {"tokenizer_file": "/etc/passwd"}, "tokenizer_file: tokenizer.json for bpe"),
    ("codec.json", BPE | {"tokenizer_file": ["tokenizer.json"]}, "tokenizer_file: tokenizer.json for bpe"),
    ("codec.json", BPE | {"tokenizer_file": "tokenizer.json"}, "tokenizer.json: no such file"),
    ("vocabulary.json", {"天": 1}, "not a list of tokens"),
    ("vocabulary.json", [*tiny.TOKENS[1:], 1], "not a list of tokens"),
    ("vocabulary.json", [*tiny.TOKENS[1:], "\ud800"], "not a list of tokens"),
    ("vocabulary.json", [], "no token is in it"),
    ("vocabulary.json", [*tiny.TOKENS[:-1], "天"], "'天' is there twice"),
    ("vocabulary.json", ["<unk>", "天"], "2 tokens, and data.json knows 12"),
    ("data.json", of_pairs(pad=0), f"pad is {SIZE} after {SIZE} tokens, not 0"),
    ("data.json", of_pairs(pad="0"), "pad: Input should be a valid integer"),
    ("data.json", of_pairs(classes=[1]), "classes: Input should be a valid string"),
    ("data.json", of_pairs(classes=["a"], num_classes=2), "1 names of 2 classes"),
    ("data.json", {**of_pairs(), "splits": [1]}, "must have kind (a text), splits (a list of texts"),
    ("data.json", {**of_pairs(), "facts": OTHER_SPECIAL}, "no pad, which data of the kind pairs has"),
]  # fmt: skip
OF_MODEL: list[tuple[str, Any, str]] = [
    *OF_IDS,
    ("data.json", of_pairs(num_tokens="many"), "num_tokens: Input should be a valid integer"),
    ("data.json", of_pairs(num_tokens=2.5), "num_tokens: Input should be a valid integer"),
    ("data.json", of_pairs(num_tokens=True), "num_tokens: Input should be a valid integer"),
    ("data.json", of_pairs(num_tokens=-1), "num_tokens: Input should be greater than or equal to 1"),
    ("recipe.json", {}, "model: Field required"),
    ("recipe.json", [], "recipe.json: Input should be"),
    ("recipe.json", "couplet", "recipe.json: Input should be"),
    ("recipe.json", {"model": ["couplet"], "train": {"network": {}}}, "model: Input should be a valid string"),
    ("recipe.json", {"model": "couplet", "train": {}}, "train: network: Field required"),
    ("recipe.json", {"model": "couplet", "train": {"network": []}}, "train: network: Input should be"),
    ("recipe.json", {"model": "x", "train": {"network": {}}}, "no model 'x'"),
    ("recipe.json", {"model": "couplet", "train": {"network": {}, "normalisations": {"a": 1}}}, "normalisations: a: "),
    ("recipe.json", {"model": "couplet", "train": {"network": {}, "normalisations": {"(": "weight"}}}, "normalisations: "),
]  # fmt: skip


def model(name: str, root: Path) -> Path:
    """A directory of a model that was never trained, with all that is needed to use it."""
    data = tiny.data_for(name, root)
    recipe = build(name, tiny.ALL[name]["network"], data.facts, 0)
    save_weights(recipe.state_dict(), data.directory / "weights.safetensors")
    write_json(
        data.directory / "recipe.json", {"model": name, "train": {"network": tiny.ALL[name]["network"]}}
    )
    return data.directory


def damage(path: Path, value: Any) -> None:
    """Write a value as JSON with ASCII alone, so that also halves of characters can be written."""
    path.write_text(json.dumps(value))


def one_line(error: GenpipeError, path: Path) -> str:
    line = str(error)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize(("file", "value", "part"), OF_IDS)
def test_data_of_ids_that_somebody_changed_is_one_line(tmp_path, file, value, part):
    directory = tiny.write_pairs(tmp_path / "pairs")
    (tmp_path / "secret").write_text("{}")
    damage(directory / file, value)
    with pytest.raises(BadState) as raised:
        open_data(directory)
    assert part in one_line(raised.value, directory)


@pytest.mark.parametrize(("file", "value", "part"), OF_MODEL)
def test_a_model_directory_that_somebody_changed_is_one_line(tmp_path, capsys, file, value, part):
    directory = model("couplet", tmp_path)
    damage(directory / file, value)
    with pytest.raises(BadState) as raised:
        opened(directory)
    assert part in one_line(raised.value, directory)
    assert main(["answer", str(directory), "天地"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


@pytest.mark.parametrize("value", [5, {}, [], [1]])
def test_a_vocabulary_beside_a_model_of_images_that_is_none_is_one_line(tmp_path, capsys, value):
    directory = model("ogan", tmp_path)
    damage(directory / "vocabulary.json", value)
    assert main(["sample", str(directory), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "vocabulary.json: no" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 5_000, '"\ud800', "{"], ids=["deep", "long", "half", "cut"]
)
def test_json_that_cannot_be_read_is_one_line(tmp_path, text):
    directory = tiny.write_pairs(tmp_path / "pairs")
    (directory / "vocabulary.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BadState, match=r"vocabulary\.json: not valid JSON"):
        open_data(directory)


IMAGES, LABELS = np.zeros((48, 1, tiny.SIDE, tiny.SIDE), np.uint8), np.zeros(48, np.uint8)


@pytest.mark.parametrize(
    ("file", "array", "part"),
    [
        ("images", IMAGES.astype(np.float32), "float32 [48, 1, 8, 8], and images are uint8 [rows, 1, 8, 8]"),
        ("images", IMAGES[..., :-1], "uint8 [48, 1, 8, 7], and images are"),
        ("images", IMAGES[:, 0], "uint8 [48, 8, 8], and images are"),
        ("images", IMAGES[0, 0, 0, 0], "uint8 [], and images are"),
        ("labels", LABELS[1:], "uint8 [47], and 48 examples have as many"),
        ("labels", LABELS[:, None], "uint8 [48, 1], and 48 examples"),
        ("labels", LABELS.astype(float), "float64 [48], and 48 examples"),
        ("labels", LABELS + 2, "labels from 2 to 2, and the classes are 0 to 1"),
        ("labels", LABELS.astype(int) - 1, "labels from -1 to -1, and the classes are 0 to 1"),
    ],
)
def test_images_that_are_none_are_one_line(tmp_path, file, array, part):
    directory = tiny.write_images(tmp_path)
    np.save(directory / f"train_{file}.npy", array)
    with pytest.raises(BadState) as raised:
        open_data(directory)
    assert part in one_line(raised.value, directory / f"train_{file}.npy")


@pytest.mark.parametrize(
    "shape", [[1, 8], [1, 8, 8, 8], [1, "8", 8], [1, 8, 0], "188", None, 8], ids=lambda shape: str(shape)
)
def test_a_shape_that_is_none_is_one_line(tmp_path, shape):
    directory = model("ogan", tmp_path)
    damage(directory / "data.json", {"kind": "images", "splits": ["train"], "facts": {"image_shape": shape}})
    for read in (opened, open_data):
        with pytest.raises(BadState, match=r"data\.json: facts: image_shape: ") as raised:
            read(directory)
        one_line(raised.value, directory)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e39", "1e999"])
def test_codes_that_are_not_finite_are_refused(tmp_path, capsys, number):
    directory, table = model("ogan", tmp_path), tmp_path / "codes.tsv"
    rows = [["0"] * 8, [*["0"] * 7, number]]
    table.write_text("".join("\t".join(["a", *row]) + "\n" for row in rows))
    assert main(["decode", str(directory), str(table), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "codes.tsv: line 2 has a number that is not finite" in line
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_too_long_is_one_line(tmp_path, capsys):
    directory, name = model("ogan", tmp_path), "a" * LONG
    for words in (
        ["encode", directory, name],
        ["answer", name, "天"],
        ["answer", f"./{name}", "天"],
        ["decode", directory, name, "--out", tmp_path / "out"],
    ):
        assert main([*map(str, words)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("genpipe: ")


def test_an_answer_in_a_terminal_that_lacks_its_characters_is_printed(tmp_path):
    directory = model("couplet", tmp_path)
    command = [sys.executable, "-m", "genpipe.cli", "answer", directory, "天地"]
    done = subprocess.run(
        command, env={"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = done.stdout.rstrip("\n").split("\t")
    assert [answer.count("\\u") for answer in answers] == [2] * 5
