"""A trained model answers alone: its training data is gone."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import genpipe
from genpipe.cli import main
from genpipe.errors import BadState
from genpipe.files import write_json
from tests import tiny
from tests.reference import REFERENCE, registered

__all__ = ["registered"]
pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def models(tmp_path_factory, reference_project):
    """Model directories, trained once, where there is no data; those of the reference recipes are of their project."""
    root = tmp_path_factory.mktemp("project")
    trained = reference_project[0] / "artifacts/models"
    for name in REFERENCE:
        shutil.copytree(trained / name, root / name / "artifacts/models" / name)
    return {"root": root}


def model(models, name) -> str:
    """The directory of a trained model, as text."""
    root = models["root"] / name
    directory = root / "artifacts/models" / name
    if not directory.exists():
        data = tiny.data_for(name, root)
        if "num_tokens" in data.facts:
            about = {"tokenizer": "char", "normalise": [], "tokenizer_file": None}
            write_json(root / "artifacts/encoded" / tiny.kind_of(name) / "codec.json", about)
        block = tiny.block(name) | {"judge": "none"}
        datasets = {"tiny": {"kind": "text", "source": "data"}}
        values = {"cluster": {"workers": 0}, "datasets": datasets, "recipes": {name: block}}
        (root / "params.yaml").write_text(yaml.safe_dump(values))
        assert main(["--root", str(root), "train", name]) == 0
        shutil.rmtree(root / "artifacts/encoded")
    return str(directory)


def use(capsys, *words: object) -> str:
    """What a command prints."""
    capsys.readouterr()
    assert main(["use", *map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys, *words: object) -> str:
    """The one line of an error."""
    capsys.readouterr()
    assert main(["use", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def picture(path, mode="L"):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = Image.fromarray(pixels)
    if mode == "RGB":
        image = Image.merge("RGB", (image, image, Image.new("L", image.size)))
    image.save(path)
    return path


def test_python_loads_a_model_without_its_data(models):
    loaded = genpipe.load(model(models, "ogan"))
    assert not loaded.training
    assert loaded.sample(3, {})["images"].shape == (3, 1, tiny.SIDE, tiny.SIDE)


def test_images_are_drawn_and_number_j_does_not_depend_on_how_many_there_are(models, tmp_path, capsys):
    for num in (3, 5):
        use(capsys, "sample", model(models, "ogan"), "--num", num, "--out", tmp_path / str(num))
    few, many = (np.load(tmp_path / str(num) / "samples.npy") for num in (3, 5))
    assert np.array_equal(few, many[:3])


def test_images_are_drawn_under_a_class(models, tmp_path, capsys):
    where = model(models, "conditional_vae")
    for label in (0, 1):
        use(capsys, "sample", where, "--given", f"labels={label}", "--out", tmp_path / str(label))
    zero, one = (np.load(tmp_path / str(label) / "samples.npy") for label in (0, 1))
    assert not np.array_equal(zero, one)
    assert "labels=2: a class is a number from 0 to 1" in refused(
        capsys, "sample", where, "--given", "labels=2", "--out", tmp_path / "new"
    )
    assert not (tmp_path / "new").exists()


def test_a_picture_is_encoded_and_its_code_decoded(models, tmp_path, capsys):
    where, file = model(models, "ogan"), picture(tmp_path / "a.png")
    table = tmp_path / "codes.tsv"
    table.write_text(use(capsys, "encode", where, file))
    use(capsys, "decode", where, table, "--out", tmp_path / "out")
    loaded = genpipe.load(where)
    x = torch.arange(64).view(1, 1, 8, 8) / 255
    with torch.no_grad():
        expected = loaded.decode(loaded.encode({"images": x}), {})["images"]
    made = np.load(tmp_path / "out/samples.npy")
    assert np.abs(made - np.rint(expected.numpy() * 255)).max() <= 1


def test_texts_are_answered_tagged_and_classified(models, tmp_path, capsys):
    lines = use(capsys, "answer", model(models, "couplet"), "天地日", "山水花鳥春").splitlines()
    assert list(map(len, lines)) == [3, 5]
    assert (
        len(use(capsys, "answer", model(models, "translator"), "天地日", "--how", "max_tokens=4").strip("\n"))
        <= 4
    )
    tags = use(capsys, "answer", model(models, "tagger"), "天地", "山水花").splitlines()
    assert [len(line.split()) for line in tags] == [2, 3]
    label, share = use(capsys, "answer", model(models, "classifier"), picture(tmp_path / "a.png")).split()
    assert label in ("0", "1")
    assert 0.5 <= float(share) <= 1


def test_the_nearest_text_to_a_text_is_itself(models, tmp_path, capsys):
    (tmp_path / "texts").write_text("山水花\n天地日\n鳥春秋\n")
    found = use(
        capsys, "search", model(models, "sentences"), "天地日", "--texts", tmp_path / "texts", "--num", 2
    )
    assert found.splitlines()[0] == "1.0000\t天地日"
    assert len(found.splitlines()) == 2


def test_texts_are_written_without_data(models, tmp_path, capsys):
    how = ("--how", "max_tokens=5", "--how", "temperature=0.5")
    use(capsys, "sample", model(models, "stream_model"), "--num", 3, *how, "--out", tmp_path / "out")
    assert np.load(tmp_path / "out/texts.npy").shape == (3, 5)


def test_bad_input_is_one_line(models, tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    ogan, couplet = model(models, "ogan"), model(models, "couplet")
    assert "does not take the condition 'labels'" in refused(
        capsys, "sample", ogan, "--given", "labels=1", *out
    )
    assert "no token of it is in the vocabulary" in refused(capsys, "answer", couplet, "xyz")
    coloured = picture(tmp_path / "c.png", "RGB")
    assert "in colours, and this model takes grey pictures" in refused(capsys, "encode", ogan, coloured)
    assert "not an option of" in refused(capsys, "sample", ogan, "--how", "heat=1", *out)
    assert "has no features to search by" in refused(capsys, "search", ogan, coloured, coloured)
    assert "makes nothing of codes" in refused(capsys, "decode", couplet, tmp_path / "x", *out)
    assert "draws nothing" in refused(capsys, "sample", couplet, *out)
    assert "nowhere" in refused(capsys, "sample", tmp_path / "nowhere", *out)
    (tmp_path / "bad.tsv").write_text("a\t1\n")
    assert "line 1 has 1 numbers" in refused(capsys, "decode", ogan, tmp_path / "bad.tsv", *out)
    assert not (tmp_path / "out").exists()


def test_a_model_without_the_facts_of_its_data_is_refused(models, tmp_path, capsys):
    shutil.copytree(model(models, "ogan"), tmp_path / "old")
    (tmp_path / "old/data.json").unlink()
    assert "train it again" in refused(capsys, "encode", tmp_path / "old", picture(tmp_path / "a.png"))
    with pytest.raises(BadState, match=r"data\.json: no such file"):
        genpipe.load(tmp_path / "old")


def test_a_model_directory_says_what_its_data_was(models):
    described = json.loads((models["root"] / "couplet/artifacts/models/couplet/data.json").read_text())
    assert described["kind"] == "pairs"
