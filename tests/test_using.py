"""A trained model answers alone: its training data is gone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import genpipe
from genpipe import lease
from genpipe.cli import build_parser, main
from genpipe.errors import BadInput, BadState
from genpipe.files import write_json
from genpipe.registry.tags import assign, read_model, register
from genpipe.using.couplets import pseudo_log_likelihoods
from tests import tiny
from tests.reference import REFERENCE, registered
from tests.repository import be_somebody, commit, dvc, make_repository

__all__ = ["registered"]
pytestmark = pytest.mark.usefixtures("registered")
PARTS = ("sample", "encode", "decode", "interpolate", "answer", "embed", "search")


@pytest.fixture(scope="module")
def models(tmp_path_factory, reference_project):
    """Model directories, trained once, where there is no data; those of the reference recipes are of their project."""
    root = tmp_path_factory.mktemp("project")
    trained = reference_project[0] / "artifacts/models"
    for name in REFERENCE:
        shutil.copytree(trained / name, root / name / "artifacts/models" / name)
    return {"root": root}


def write_params(root: Path, name: str) -> None:
    """params.yaml with one recipe, whose samples no other one judges."""
    block = tiny.block(name) | {"judge": "none"}
    datasets = {"tiny": {"kind": "text", "source": "data"}}
    values = {"cluster": {"workers": 0}, "datasets": datasets, "recipes": {name: block}}
    (root / "params.yaml").write_text(yaml.safe_dump(values))


def model(models, name) -> str:
    """The directory of a trained model, as text."""
    root = models["root"] / name
    directory = root / "artifacts/models" / name
    if not directory.exists():
        tiny.data_for(name, root)
        write_params(root, name)
        assert main(["--root", str(root), "train", name]) == 0
        shutil.rmtree(root / "artifacts/encoded")
    return str(directory)


def use(capsys, *words: object) -> str:
    """What a command prints."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


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


def test_a_directory_with_nothing_but_the_model_is_enough(models, tmp_path):
    """Each command, as a process of its own in a directory of its own; of `couplet` and `ogan` there is no more on it."""
    for name in ("ogan", "couplet"):
        shutil.copytree(model(models, name), tmp_path / name)
    picture(tmp_path / "a.png")

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "genpipe.cli", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    run("sample", "./ogan", "--num", "3", "--out", "drawn")
    (tmp_path / "codes.tsv").write_text(run("encode", "./ogan", "a.png"))
    run("decode", "ogan", "codes.tsv", "--out", "decoded")
    assert set(map(len, run("answer", "couplet", "天地日").strip().split("\t"))) == {3}
    assert {path.name for path in tmp_path.iterdir()} == {
        "ogan", "couplet", "a.png", "drawn", "codes.tsv", "decoded",
    }  # fmt: skip


def test_a_recipe_that_is_trained_is_named_as_in_params(models, tmp_path, capsys, monkeypatch):
    """An input, or an option of a model, says that the model is meant and not the stage."""
    for name in ("ogan", "couplet"):
        shutil.copytree(model(models, name), tmp_path / "artifacts/models" / name)
    picture(tmp_path / "a.png")
    root = ("--root", str(tmp_path))
    assert main([*root, "sample", "ogan", "--num", "3", "--out", str(tmp_path / "drawn")]) == 0
    assert main([*root, "encode", "ogan", str(tmp_path / "a.png")]) == 0
    assert main([*root, "answer", "couplet", "天地日"]) == 0
    monkeypatch.chdir(tmp_path)
    assert main([*root, "sample", "ogan", "--num", "3"]) == 0, capsys.readouterr().err
    assert np.array_equal(*(np.load(tmp_path / out / "samples.npy") for out in ("drawn", "ogan-samples")))
    (tmp_path / "ogan-samples/mine").write_text("kept")
    assert main([*root, "sample", "ogan", "--num", "3"]) == 2
    assert "replacing it would delete mine" in capsys.readouterr().err
    assert main([*root, "sample", "ogan"]) == 2
    assert "params.yaml: no such file" in capsys.readouterr().err, "the stage"


def test_a_version_of_the_registry_answers_from_the_cache_of_dvc(tmp_path, monkeypatch, capsys):
    """What `genpipe train` made under DVC, tagged, and gone from the workspace."""
    be_somebody(monkeypatch)
    root = make_project(tmp_path / "project")
    trained = root / "artifacts/models/ogan"
    shutil.copytree(trained, tmp_path / "kept")
    shutil.rmtree(root / "artifacts/models")
    drawn = []
    for number, name in enumerate(("ogan@prod", "ogan@v0.0.1", tmp_path / "kept")):
        out = tmp_path / str(number)
        words = ["--root", root, "sample", name, "--num", 3, "--out", out]
        assert main(list(map(str, words))) == 0, capsys.readouterr().err
        drawn.append(np.load(out / "samples.npy"))
    monkeypatch.chdir(root)
    again = genpipe.sample("ogan@prod", 3)["images"]
    assert np.array_equal(np.rint(again.numpy() * 255), drawn[0])
    assert genpipe.interpolate("ogan@prod", steps=3).shape == (3, 1, tiny.SIDE, tiny.SIDE)
    file = picture(tmp_path / "a.png")
    assert main(["interpolate", "ogan@prod", str(file), str(file), "--out", str(tmp_path / "way.png")]) == 0
    assert main(["encode", "ogan@prod", str(file)]) == 0
    assert np.array_equal(drawn[0], drawn[2])
    assert np.array_equal(drawn[1], drawn[2])
    assert not trained.exists()
    for name, words in (
        ("ogan@v9.9.9", "ogan@v9.9.9: no such version or stage; it has: v0.0.1, prod"),
        ("nice@prod", "nice@prod: no such version or stage; no version of it is registered"),
        ("ogan@", "MODEL@VERSION or MODEL@STAGE"),
    ):
        assert main(["--root", str(root), "sample", name, "--out", str(tmp_path / "new")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert not (tmp_path / "new").exists()


def test_a_version_of_the_registry_writes_targets_of_own_texts(tmp_path, monkeypatch, capsys):
    """From the command line and from Python, without its data; each text as if it were alone."""
    be_somebody(monkeypatch)
    root = make_project(tmp_path / "project", "title_lstm")
    for gone in ("models", "encoded"):
        shutil.rmtree(root / "artifacts" / gone)
    monkeypatch.chdir(root)
    texts, how = ["天地日", "山水花鳥春", "月"], {"max_tokens": 4, "beam": 2}
    words = [f"--how={name}={value}" for name, value in how.items()]
    lines = use(capsys, "answer", "title_lstm@prod", *texts, *words).splitlines()
    assert lines == genpipe.answer("title_lstm@prod", texts, how=how)
    assert lines == [genpipe.answer("title_lstm@prod", [text], how=how)[0] for text in texts]


def make_project(root: Path, name: str = "ogan") -> Path:
    """A project of Git and DVC whose one model is in production."""
    root.mkdir()
    make_repository(root)
    tiny.data_for(name, root)
    write_params(root, name)
    stage = {"cmd": f"genpipe train {name}", "outs": [f"artifacts/models/{name}"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    (root / ".gitignore").write_text("/artifacts/models/\n/artifacts/curves/\n/.genpipe/\n")
    dvc(root, "repro", "-q")
    made = commit(root, "begin")
    register(root, name, made)
    assign(root, read_model(root, name).named("v0.0.1"), "first")
    return root


def test_outside_of_git_a_version_is_not_to_be_had(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    line = refused("sample", "ogan@prod", "--out", "out")
    assert "not in a Git repository; go to the root of the project" in line


def test_images_are_drawn_and_number_j_does_not_depend_on_how_many_there_are(models, tmp_path, capsys):
    for num in (3, 5):
        use(capsys, "sample", model(models, "ogan"), "--num", num, "--out", tmp_path / str(num))
    few, many = (np.load(tmp_path / str(num) / "samples.npy") for num in (3, 5))
    assert np.array_equal(few, many[:3])


def test_images_are_drawn_under_a_class(models, tmp_path, capsys, refused):
    where = model(models, "conditional_vae")
    for label in ("red", "blue"):
        use(capsys, "sample", where, "--given", f"labels={label}", "--out", tmp_path / str(label))
    zero, one = (np.load(tmp_path / str(label) / "samples.npy") for label in ("red", "blue"))
    assert not np.array_equal(zero, one)
    use(capsys, "sample", where, "--class", "red", "--out", tmp_path / "short")
    assert np.array_equal(zero, np.load(tmp_path / "short/samples.npy"))
    out = ("--out", tmp_path / "new")
    for words, line in (
        (("--given", "labels=1"), "no class '1'; the classes are: blue, red"),
        (("--class", "green"), "no class 'green'; the classes are: blue, red"),
        (
            ("--class", "red", "--given", "labels=red"),
            "--class and --given labels= name a class both; leave one",
        ),
        (
            (),
            "ConditionalVAE takes the condition 'labels', which is missing; add --class CLASS, or from Python",
        ),
    ):
        assert line in refused("sample", where, *words, *out)


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


def test_codes_are_found_and_decoded_under_a_class(models, tmp_path, capsys, refused):
    where, file = model(models, "conditional_vae"), picture(tmp_path / "a.png")
    table = tmp_path / "codes.tsv"
    table.write_text(use(capsys, "encode", where, file, file, "--given", "labels=blue"))
    assert "takes the condition 'labels', which is missing" in refused("encode", where, file)
    for words in (("decode", where, table), ("sample", where)):
        missing = refused(*words, "--out", tmp_path / "out")
        assert "takes the condition 'labels', which is missing; add --class CLASS, or from Python" in missing
    for label in ("red", "blue"):
        use(capsys, "decode", where, table, "--given", f"labels={label}", "--out", tmp_path / str(label))
    zero, one = (np.load(tmp_path / str(label) / "samples.npy") for label in ("red", "blue"))
    assert len(zero) == 2
    assert not np.array_equal(zero, one)


def test_trained_models_are_used_while_another_process_runs_their_stage(models, tmp_path, capsys, refused):
    ogan, file = Path(model(models, "ogan")), picture(tmp_path / "a.png")
    of_model = {"sample": ("--num", 2, "--out", tmp_path / "out"), "encode": (file,)}
    for command, words in of_model.items():
        with lease.hold(ogan.parents[2], f"{command}@ogan"):
            use(capsys, "--root", ogan.parents[2], command, "ogan", *words)
    elsewhere = tmp_path / "no project"
    elsewhere.mkdir()
    assert "ogan: no such directory" in refused("--root", elsewhere, "encode", "ogan", file)
    assert not list(elsewhere.iterdir())


def test_an_empty_class_is_no_class_and_not_the_stage(models, tmp_path, refused):
    vae = Path(model(models, "conditional_vae"))
    words = ("--root", vae.parents[2], "sample", "conditional_vae", "--class", "", "--out", tmp_path / "out")
    assert "no class ''; the classes are: blue, red" in refused(*words)


def test_values_that_are_not_finite_are_refused_and_nothing_is_written(models, tmp_path, refused):
    where = tmp_path / "model"
    shutil.copytree(model(models, "ogan"), where)
    weights = load_file(where / "weights.safetensors")
    spoiled = {
        name: value * torch.nan if value.is_floating_point() else value for name, value in weights.items()
    }
    save_file(spoiled, where / "weights.safetensors")
    out, table = tmp_path / "out", tmp_path / "codes.tsv"
    table.write_text("\t".join(["a", *["0.5"] * 8]) + "\n")
    for words in (("sample", where), ("decode", where, table), ("interpolate", where)):
        target = out.with_suffix(".png") if words[0] == "interpolate" else out
        assert "model: images that this model made are not finite numbers; take" in refused(
            *words, "--out", target
        )
        assert not target.exists()
    file = picture(tmp_path / "a.png")
    assert "codes that this model made are not finite numbers" in refused("encode", where, file)
    vae = model(models, "conditional_vae")
    hot = refused("sample", vae, "--class", "red", "--how", "scale=inf", "--out", out)
    assert "not finite numbers; take options that are less extreme" in hot


def test_what_is_missing_is_said_before_pictures_are_read(models, tmp_path, refused):
    vae, large = model(models, "conditional_vae"), tmp_path / "large.png"
    Image.new("L", (16, 16)).save(large)
    for words in (("encode", vae, large), ("interpolate", vae, large, large, "--out", tmp_path / "way.png")):
        assert "resized" not in refused(*words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("sample", "gan", "--class", "7", "--class", "3"), "--class: given twice, as 7 and 3; leave one of them"),
        (("interpolate", "ogan", "--steps", "1"), "--steps: must be a number from 2 to 1,000, not '1'"),
        (("interpolate", "ogan", "--steps", "1001"), "--steps: must be a number from 2 to 1,000, not '1001'"),
    ],
)  # fmt: skip
def test_words_that_say_too_much_are_refused(words, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*words])
    assert line in capsys.readouterr().err


def test_a_command_that_is_refused_leaves_no_directory(tmp_path, refused):
    refused("interpolate", tmp_path / "nowhere", "--out", tmp_path / "new/deep/way.png")
    assert not list(tmp_path.iterdir())


def test_the_way_between_two_pictures_begins_and_ends_with_what_is_made_of_them(models, tmp_path, capsys):
    where, a = model(models, "ogan"), picture(tmp_path / "a.png")
    b = tmp_path / "b.png"
    Image.fromarray(np.full((8, 8), 200, dtype=np.uint8)).save(b)
    use(capsys, "interpolate", where, a, b, "--steps", 5, "--out", tmp_path / "way.png")
    way = np.array(Image.open(tmp_path / "way.png"))
    tiles = [way[2:10, 2 + 10 * i : 10 + 10 * i] for i in range(7)]
    assert np.array_equal(tiles[0], np.array(Image.open(a)))
    assert np.array_equal(tiles[6], np.array(Image.open(b)))
    made = genpipe.interpolate(where, [a, b], steps=5)
    loaded = genpipe.load(where)
    x = torch.stack([torch.from_numpy(np.array(Image.open(file)))[None] for file in (a, b)]) / 255
    with torch.no_grad():
        expected = loaded.decode(loaded.encode({"images": x}), {})["images"]
    assert torch.allclose(made[[0, -1]], expected, atol=1e-5)
    shown = np.rint(made[:, 0].numpy() * 255)
    assert all(np.abs(tiles[1 + i] - shown[i]).max() <= 1 for i in range(5))
    assert torch.equal(genpipe.interpolate(where, x, steps=5), made)


def test_a_picture_at_an_end_is_read_once(models, tmp_path, capsys):
    picture(tmp_path / "a.png")
    Image.open(tmp_path / "a.png").resize((16, 16)).save(tmp_path / "large.png")
    files = [str(tmp_path / name) for name in ("a.png", "large.png")]
    assert main(["interpolate", model(models, "ogan"), *files, "--out", str(tmp_path / "way.png")]) == 0
    assert capsys.readouterr().err.count("resized to 8 × 8") == 1


def test_without_pictures_the_way_goes_from_sample_to_sample(models, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = use(capsys, "interpolate", model(models, "wgan_gp"), "--seed", 3)
    assert said == "wrote interpolation.png: 8 steps between two samples\n"
    assert Image.open("interpolation.png").size == (8 * 10 + 2, 12)
    one, other = (genpipe.interpolate(model(models, "wgan_gp"), seed=seed) for seed in (3, 4))
    assert one.shape == (8, 1, tiny.SIDE, tiny.SIDE)
    assert not torch.equal(one, other)


def test_the_way_stays_in_the_class_that_is_given(models, tmp_path):
    where = model(models, "conditional_vae")
    red, blue = (genpipe.interpolate(where, given={"labels": name}) for name in ("red", "blue"))
    assert red.shape == (8, *genpipe_facts(models, "conditional_vae")["image_shape"])
    assert not torch.equal(red, blue)
    a, b = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", "RGB")
    ways = [genpipe.interpolate(where, [a, b], given={"labels": each}) for each in (["red", "blue"], "red")]
    assert torch.equal(ways[0][0], ways[1][0]), "the first code and the class that it is decoded under"
    assert not torch.equal(ways[0][-1], ways[1][-1]), "a picture is encoded under its own class"


def test_python_draws_and_encodes_what_the_commands_do(models, tmp_path, capsys):
    where, file = model(models, "conditional_vae"), picture(tmp_path / "a.png")
    use(capsys, "sample", where, "--class", "red", "--num", 3, "--seed", 5, "--out", tmp_path / "out")
    made = genpipe.sample(where, 3, seed=5, given={"labels": "red"})["images"]
    assert np.array_equal(np.load(tmp_path / "out/samples.npy"), np.rint(made.numpy() * 255))
    mixed = genpipe.sample(where, 4, seed=5, given={"labels": ["red", "blue"]})["images"]
    array = genpipe.sample(where, 4, seed=5, given={"labels": np.array(["red", "blue"])})["images"]
    assert torch.equal(array, mixed)
    assert torch.equal(mixed[0], made[0])
    assert torch.equal(mixed[1], genpipe.sample(where, 2, seed=5, given={"labels": "blue"})["images"][1])
    printed = use(capsys, "encode", where, file, "--class", "red").split("\t")[1:]
    code = genpipe.encode(where, [file], given={"labels": "red"})
    assert torch.allclose(code[0], torch.tensor(list(map(float, printed))))
    project = Path(where).parents[2]
    assert torch.equal(genpipe.encode("conditional_vae", [file], given={"labels": "red"}, root=project), code)


def test_python_refuses_what_the_commands_refuse(models, tmp_path):
    ogan, vae, file = model(models, "ogan"), model(models, "conditional_vae"), picture(tmp_path / "a.png")
    wide = torch.rand(2, 1, 8, 9)
    for use_it, line in (
        (
            lambda: genpipe.sample(vae, 2, given={"labels": "green"}),
            "no class 'green'; the classes are: blue, red",
        ),
        (
            lambda: genpipe.sample(ogan, 2, given={"labels": 7}),
            "OGAN does not take the condition 'labels'; it takes: none; classes need a model that was trained with conditional: true",
        ),
        (lambda: genpipe.sample(vae, 2), "ConditionalVAE takes the condition 'labels', which is missing"),
        (
            lambda: genpipe.encode(ogan, wide),
            r"images of \[2, 1, 8, 9\]: OGAN takes \[n, 1, 8, 8\]; resize them, or name",
        ),
        (
            lambda: genpipe.encode(vae, [file], given={"labels": ["red"] * 2}),
            "labels: 2 conditions for 1 examples; give one",
        ),
        (
            lambda: genpipe.encode(ogan, np.zeros((1, 1, 8, 8), np.uint8)),
            "inputs: a ndarray is neither the name of a file nor a text; give images as a tensor",
        ),
        (lambda: genpipe.sample(ogan, 0), "num: must be 1 or more, not 0"),
        (lambda: genpipe.sample(vae, 2, given={"labels": []}), "labels: there is no value; give one"),
        (
            lambda: genpipe.encode(ogan, []),
            r"inputs: give a list of files or texts, or a tensor, .* not \[\]",
        ),
        (lambda: genpipe.encode(ogan, str(file)), "inputs: give a list of files or texts"),
        (
            lambda: genpipe.encode(ogan, torch.full((1, 1, 8, 8), 2.0)),
            r"must lie in \[0, 1\]; give bytes as uint8",
        ),
        (
            lambda: genpipe.encode(ogan, torch.full((1, 1, 8, 8), torch.nan)),
            r"must lie in \[0, 1\]; give bytes",
        ),
        (lambda: genpipe.interpolate(ogan, steps=1), "steps: must be 2 or more, not 1"),
        (
            lambda: genpipe.load(tmp_path / "nowhere"),
            "nowhere: no such directory; name a recipe that is trained",
        ),
    ):
        with pytest.raises(BadInput, match=line):
            use_it()


def test_a_picture_of_another_size_is_resized_and_a_line_says_so(models, tmp_path, capsys):
    where = model(models, "ogan")
    for size, words in (
        ((16, 16), "16 × 16 pixels; resized to 8 × 8"),
        ((20, 10), "20 × 10 pixels; its middle square resized to 8 × 8"),
        ((8, 8), ""),
    ):
        Image.new("L", size, 90).save(tmp_path / "b.png")
        capsys.readouterr()
        assert main(["encode", where, str(tmp_path / "b.png")]) == 0
        said = capsys.readouterr().err
        assert said == (f"{tmp_path}/b.png: {words}\n" if words else "")


def test_a_picture_that_is_too_large_is_refused_with_the_limit(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    Image.new("L", (20, 20)).save(tmp_path / "large.png")
    assert main(["encode", str(model(models, "ogan")), str(tmp_path / "large.png")]) == 2
    assert "large.png: more than 100 pixels; make the picture smaller" in capsys.readouterr().err


def test_a_large_picture_is_read_without_a_warning_of_pillow(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    Image.new("L", (16, 16)).save(tmp_path / "large.png")
    assert use(capsys, "encode", model(models, "ogan"), tmp_path / "large.png")


def test_classes_without_names_are_numbers(models, tmp_path, capsys):
    """Of many names an error has the first ones."""
    directory = tmp_path / "vae"
    shutil.copytree(model(models, "conditional_vae"), directory)
    described = json.loads((directory / "data.json").read_text())
    del described["facts"]["classes"]
    write_json(directory / "data.json", described)
    named = genpipe.sample(model(models, "conditional_vae"), 2, given={"labels": "red"})["images"]
    assert torch.equal(genpipe.sample(directory, 2, given={"labels": 1})["images"], named)
    with pytest.raises(BadInput, match=r"^no class '2'; the classes are 0 to 1$"):
        genpipe.sample(directory, 2, given={"labels": 2})


def test_texts_are_answered_tagged_and_classified(models, tmp_path, capsys):
    lines = use(capsys, "answer", model(models, "couplet"), "天地日", "山水花鳥春", "--num", "2").splitlines()
    assert [[len(answer) for answer in line.split("\t")] for line in lines] == [[3, 3], [5, 5]]
    assert (
        len(use(capsys, "answer", model(models, "translator"), "天地日", "--how", "max_tokens=4").strip("\n"))
        <= 4
    )
    tags = use(capsys, "answer", model(models, "tagger"), "天地", "山水花").splitlines()
    assert [len(line.split()) for line in tags] == [2, 3]
    assert {tag for line in tags for tag in line.split()} <= {*genpipe_facts(models, "tagger")["classes"]}
    label, share = use(capsys, "answer", model(models, "classifier"), picture(tmp_path / "a.png")).split()
    assert label in genpipe_facts(models, "classifier").get("classes", ("0", "1"))
    assert 0.5 <= float(share) <= 1


def test_targets_and_answers_are_written_for_own_texts(models, tmp_path, capsys, refused):
    """From the command line, from a file of passages, and from Python, in the same words."""
    pairs, reader = model(models, "unilm"), model(models, "unilm_passages")
    (line,) = use(capsys, "answer", pairs, "天地日", "--how", "max_tokens=4", "--how", "beam=2").splitlines()
    assert [line] == genpipe.answer(pairs, ["天地日"], how={"max_tokens": 4, "beam": 2})
    (tmp_path / "passages").write_text("天地日月\n山水\n", encoding="utf-8")
    how = ("--how", "max_tokens=3", "--how", "extractive=true")
    by_file = use(capsys, "answer", reader, "花鳥", "春", "--passages", tmp_path / "passages", *how)
    by_words = use(capsys, "answer", reader, "花鳥", "春", "--passage", "天地日月", "--passage", "山水", *how)
    assert by_file == by_words
    answers = genpipe.answer(
        reader, ["花鳥", "春"], passages=["天地日月", "山水"], how={"max_tokens": 3, "extractive": True}
    )
    assert by_file.splitlines() == answers
    assert all(text in "天地日月" or text in "山水" for text in answers)
    ids = genpipe.sample(
        reader,
        2,
        given={"question": ["花鳥", "春"], "passages": [["天地"], ["山水", "日"]]},
        how={"max_tokens": 3},
    )["ids"]
    assert ids.shape == (2, 3)
    for words, line in (
        (
            ("answer", reader, "花鳥"),
            "UniLM answers questions about passages; give one or more with --passage TEXT",
        ),
        (("answer", pairs, "天地", "--passage", "山水"), "passages: UniLM reads none; leave them out"),
        (("answer", pairs, "天地", "--how", "extractive=true"), "extractive: UniLM reads no passages"),
        (
            ("answer", pairs, "天地", "--how", "min_tokens=200"),
            "min_tokens: 200 are more than max_tokens, 100",
        ),
        (
            ("answer", pairs, "天地日月" * 9),
            "a text of 38 tokens with its marks, and this model reads and writes 12 in all",
        ),
    ):
        assert line in refused(*words)


def test_a_masked_language_model_puts_the_likelier_lines_first(models):
    """With a weight that outdoes the couplet model: the lines of the beam in the order of their pseudo-likelihoods."""
    where, masked = model(models, "couplet"), model(models, "masked_lm")
    how = {"masked_lm": masked, "masked_weight": 1e6, "differ": 1, "num": 12}
    (lines,) = genpipe.answer(where, ["天地"], how=how)
    judge = genpipe.load(masked)
    words = json.loads(Path(masked, "vocabulary.json").read_text())
    number = {word: place for place, word in enumerate(words)}
    texts = [f"天地，{line}。" for line in lines.split("\t")]
    ids = torch.tensor([[number.get(character, 0) for character in text] for text in texts])
    found = pseudo_log_likelihoods(judge, ids, [3, 4])
    assert len(texts) == 12
    assert torch.equal(found.argsort(descending=True), torch.arange(12))


def test_gaps_of_a_text_are_filled_with_the_likeliest_tokens(models, refused, capsys):
    """Those of `fill`, in the places of the gaps and nowhere else; from the command line and from Python."""
    where = model(models, "masked_lm")
    texts = ["天＿日", "＿水花鳥＿＿"]
    lines = use(capsys, "answer", where, *texts).splitlines()
    assert lines == genpipe.answer(where, texts)
    recipe, words = genpipe.load(where), json.loads(Path(where, "vocabulary.json").read_text())
    for text, line in zip(texts, lines, strict=True):
        ids = torch.tensor(
            [[words.index(c) if c in words else genpipe_facts(models, "masked_lm")["mask"] for c in text]]
        )
        hidden = torch.tensor([[c == "＿" for c in text]])
        x = {
            "ids": ids,
            "documents": torch.zeros_like(ids),
            "positions": torch.arange(len(text)).unsqueeze(0),
        }
        with torch.no_grad():
            found = recipe.fill(x, hidden)[:, : len(words)].argmax(-1).tolist()
        assert line == "".join(words[found.pop(0)] if c == "＿" else c for c in text).replace(
            words[0], "□"
        ).replace("\n", "⏎")
    for text, line in (
        ("天地日", "'天地日': give a text with gaps, a ＿ for each hidden token, as in 床前明＿光"),
        ("＿＿", "give a text with gaps"),
        ("天地日月山水＿花鳥春秋天地", "a text of 13 tokens, and the model reads 12 at once; shorten it"),
    ):
        assert line in refused("answer", where, text)


def genpipe_facts(models, name):
    """What data.json of a model says of its data."""
    return json.loads(Path(model(models, name), "data.json").read_text(encoding="utf-8"))["facts"]


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


def test_each_command_teaches_with_an_example(capsys):
    """The words of an example are words that the command takes."""
    for part in PARTS:
        with pytest.raises(SystemExit):
            main([part, "--help"])
        _, _, examples = " ".join(capsys.readouterr().out.split()).partition("example")
        for command in examples.partition(":")[2].split(";"):
            words = command.partition(",")[0].partition(">")[0].partition(". ")[0].split()
            assert build_parser().parse_args(words[1:]).command == part


def test_input_that_a_model_cannot_take_is_one_line(models, tmp_path, refused):
    out = ("--out", tmp_path / "out")
    ogan, couplet, tagger = (model(models, name) for name in ("ogan", "couplet", "tagger"))
    grey, coloured = picture(tmp_path / "a.png"), picture(tmp_path / "c.png", "RGB")
    (tmp_path / "bad.tsv").write_text("a\t1\n")
    (tmp_path / "words").write_text("no picture")
    for words, line in (
        (("sample", ogan, "--given", "labels=1", *out), "OGAN does not take the condition 'labels'; it takes"),
        (("encode", ogan, coloured), "c.png: in colours, and this model takes grey pictures; convert it"),
        (("encode", ogan, tmp_path / "no.png"), "no.png: no such file or directory; name a file of a picture"),
        (("encode", ogan, tmp_path), f"{tmp_path}: a directory; name the files of pictures in it"),
        (("encode", ogan, tmp_path / "words"), "words: not a picture that can be read"),
        (("answer", couplet, "天地", "xyz"), "'xyz': no token of it is in the vocabulary; give text like"),
        (("sample", ogan, "--how", "heat=1", *out), "--how heat: not an option of OGAN.sample; its options"),
        (("answer", couplet, "天地", "--how", "heat=1"), "--how heat: not an option of search; its options: num, cand"),
        (("answer", couplet, "天地", "--how", "tones=true"), "tones: Couplet knows none; take a model that was trained"),
        (("answer", couplet, "天地", "--how", "masked_lm=none"), "none: no such directory; name a trained masked_lm"),
        (("answer", tagger, "天地", "--num", "3"), "--how num: Tagger takes no options where it answers"),
        (("answer", ogan, grey), "OGAN answers nothing: it cannot tag, classify, fill gaps, or write"),
        (("sample", ogan, "--how", "a=1", "--how", "a=2", *out), "--how a: given twice, as 1 and 2; leave one of them"),
        (("sample", ogan, "--given", "labels=1", "--given", "labels=2", *out), "--given labels: given twice, as 1 and 2"),
        (("sample", ogan, "--num", 10**12, *out), "samples need 512,000 GB of memory, and this machine has"),
        (("encode", ogan), "ogan is to encode: files of pictures, or texts"),
        (("interpolate", ogan, grey), "name two pictures, or none to go from one sample to another, not 1"),
        (("interpolate", ogan, grey, grey, "--seed", "4"), "--seed has no effect between two pictures; leave it"),
        (("interpolate", couplet), "Couplet makes no images: it was trained on pairs"),
        (("interpolate", ogan, grey, grey, "--out", grey), "a.png: this is the input"),
        (("interpolate", model(models, "wgan_gp"), grey, grey), "GAN cannot encode and decode pictures; name no"),
        (("interpolate", model(models, "classifier"), grey, grey), "Classifier cannot encode and decode pictures; gen"),
        (("interpolate", ogan, grey, coloured), "c.png: in colours, and this model takes grey pictures; convert it"),
        (("search", ogan, grey, grey), "OGAN has no features to search by: it is not Embeds; genpipe recipes"),
        (("search", model(models, "sentences"), "天地"), "there is nothing to search: give inputs after"),
        (("decode", couplet, tmp_path / "x", *out), "Couplet makes nothing of codes: it is not Decodes"),
        (("sample", couplet, *out), "Couplet draws nothing: it is not Samples nor NextToken"),
        (("encode", tagger, "天地"), "Tagger has neither codes nor features: it is not Encodes nor Embeds"),
        (("decode", ogan, tmp_path / "bad.tsv", *out), "line 1 has 1 numbers, and codes of this model have 8"),
        (("sample", tmp_path / "nowhere", *out), "nowhere: no such directory; name a recipe that is trained"),
        (("sample", tmp_path, *out), "recipe.json: no such file or directory; name the directory of a"),
    ):  # fmt: skip
        assert line in refused(*words)


def test_a_picture_under_a_name_of_another_format_is_refused(models, tmp_path, capsys):
    out = ["--out", str(tmp_path / "way.jpg")]
    with pytest.raises(SystemExit, match="2"):
        main(["interpolate", model(models, "wgan_gp"), *out])
    assert "argument --out: must be the name of a PNG file, as way.png, not" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_directory_that_lacks_a_part_of_the_model_is_refused(models, tmp_path, refused):
    picture(tmp_path / "a.png")
    for name, file, value, line in (
        ("ogan", "data.json", None, "does not have the facts of its data; train it again"),
        (
            "ogan",
            "data.json",
            {"kind": "images", "splits": [], "facts": []},
            "data.json: must have kind (a text)",
        ),
        (
            "ogan",
            "data.json",
            {"kind": "images", "splits": ["train"], "facts": {}},
            "the data must be images or points",
        ),
        ("ogan", "weights.safetensors", None, "weights.safetensors: no such file"),
        ("couplet", "codec.json", None, "codec.json: no such file"),
        ("couplet", "codec.json", {}, "codec.json: tokenizer, normalise or tokenizer_file are missing"),
        ("couplet", "vocabulary.json", None, "vocabulary.json: no such file"),
        ("couplet", "vocabulary.json", {"天": 1}, "vocabulary.json: not a list of tokens"),
        ("couplet", "vocabulary.json", ["<unk>", "天"], "2 tokens, and data.json knows 12"),
    ):
        directory = tmp_path / "model"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(model(models, name), directory)
        (directory / file).unlink()
        if value is not None:
            write_json(directory / file, value)
        words = (
            ("answer", directory, "天地") if name == "couplet" else ("encode", directory, tmp_path / "a.png")
        )
        assert line in refused(*words)
    (directory / "data.json").unlink()
    with pytest.raises(BadState, match=r"data\.json: no such file"):
        genpipe.load(directory)


def test_a_model_directory_has_the_facts_that_the_options_of_its_batches_made(models):
    """Else a model with a table of positions, as long as a window, would not be built again."""
    described = json.loads((Path(model(models, "stream_model")) / "data.json").read_text())
    assert described["facts"]["time"] == 8


def test_a_model_directory_says_what_its_data_was(models):
    described = json.loads((Path(model(models, "couplet")) / "data.json").read_text())
    assert described["kind"] == "pairs"
