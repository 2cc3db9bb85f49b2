"""The command line: what a person sees, and what bad input gets."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from genpipe.cli import build_parser, main
from genpipe.experiment import number_of_workers
from genpipe.params.cluster import Cluster
from tests import tiny


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "genpipe.cli", *words], cwd=cwd, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for kind in {"images", "pairs", *map(tiny.data_of, tiny.BLOCKS)}:
        tiny.DATA[kind](root / "artifacts" / "encoded" / kind)
    tones = root / "artifacts" / "encoded" / "pairs" / "tones.tsv"
    tones.write_text("character\ttone\tcount\tshare\n天\t平\t3\t1.0\n地\t仄\t3\t1.0\n", encoding="utf-8")
    blocks = {name: tiny.block(name) for name in tiny.BLOCKS}
    datasets = {"tiny": {"kind": "digits", "source": "data/digits"}}
    (root / "params.yaml").write_text(yaml.safe_dump({"datasets": datasets, "recipes": blocks}))
    (root / "text.txt").write_text("a b\n")
    return root


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['genpipe', '--help']\nfrom genpipe.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'ray', 'prefect', 'pandas', 'numpy', 'dvc', 'pydantic'} & set(sys.modules)\nassert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "genpipe data" in done.stdout


def test_every_command_explains_itself(capsys):
    (commands,) = [a.choices for a in build_parser()._actions if a.dest == "command"]
    assert {
        "data",
        "prepare",
        "count",
        "vocabulary",
        "encode",
        "train",
        "sample",
        "evaluate",
        "report",
        "plan",
    } <= set(commands)
    for name in commands:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert name in capsys.readouterr().out


def test_no_words_shows_what_there_is(capsys):
    assert main([]) == 0
    assert "commands:" in capsys.readouterr().out


def test_the_recipes_are_listed_with_what_they_can_do(capsys):
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert "nice         Samples, LogProb" in out
    assert "couplet      Tags" in out


def test_a_reader_that_ends_early_gets_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "genpipe.cli", "recipes"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_argument_that_a_command_does_not_know_shows_what_it_takes(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["encode", "ogan", "three.png", "--out", "codes"])
    said = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert said[0].startswith("usage: genpipe encode [-h] [--given NAME=VALUE]")
    assert said[-1] == "genpipe encode: error: unrecognized arguments: --out codes"


DRAWN = {"grid.png", "samples.npy", "nearest.png", "panels.json"}
MADE = {
    "classifier": ({"mistakes.png", "panels.json"}, {"accuracy"}),
    "nice": (
        {*DRAWN, "interpolation.png", "temperatures.png"},
        {"bits_per_dim", "frechet_classifier", "frechet_real_vs_real", "inversion_error", "log_det_error"},
    ),
    "ogan": (
        {*DRAWN, "walks.png", "reconstructions.png", "interpolation.png"},
        {"latent_correlation", "reconstruction_mse"},
    ),
    "aae": (
        {*DRAWN, "walks.png", "reconstructions.png", "interpolation.png"},
        {"latent_correlation", "reconstruction_mse", "frechet_classifier"},
    ),
    "energy": (DRAWN, {"frechet_classifier"}),
    "glann": (
        {*DRAWN, "walks.png", "reconstructions.png", "interpolation.png"},
        {"reconstruction_mse", "frechet_classifier"},
    ),
    "gan": ({*DRAWN, "walks.png"}, {"frechet_classifier"}),
    "couplet": (
        {"answers.tsv", "panels.json"},
        {"cross_entropy", "cross_entropy_unigram", "tone_opposition_real"},
    ),
}


@pytest.fixture(scope="module")
def judge(project) -> None:
    """The classifier, which the others are judged by."""
    make_and_measure(project, "classifier")


def make_and_measure(project: Path, name: str) -> None:
    for words in (["train", name, "--workers", "0"], ["sample", name], ["evaluate", name]):
        assert main(["--root", str(project), *words]) == 0


@pytest.mark.parametrize("name", sorted(tiny.BLOCKS))
def test_train_sample_and_evaluate_write_what_a_recipe_can(name, project, judge):
    make_and_measure(project, name)
    made = {path.name for path in (project / "artifacts" / "samples" / name).iterdir()}
    metrics = yaml.safe_load((project / "artifacts" / "metrics" / f"{name}.json").read_text())
    panels = json.loads((project / "artifacts" / "samples" / name / "panels.json").read_text())
    assert {row["file"] for row in panels} <= made
    assert metrics
    files, measured = MADE.get(name, (made, set()))  # what the capabilities of a model give needs no row
    assert made == files
    assert measured <= set(metrics)
    curve = (project / "artifacts" / "curves" / f"{name}.tsv").read_text().splitlines()
    assert curve[0].startswith("step\tloss")


def test_a_finished_training_is_exported_without_training(project, capsys):
    words = ["--root", str(project), "train", "nice", "--workers", "0", "--out", str(project / "out")]
    assert main(words) == 0
    first = {path.name: path.read_bytes() for path in (project / "out").iterdir()}
    capsys.readouterr()
    assert main(words) == 0
    assert "finished already" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (project / "out").iterdir()} == first


def test_steps_and_seed_can_be_given(project):
    words = [
        "--root",
        str(project),
        "train",
        "nice",
        "--workers",
        "0",
        "--steps",
        "3",
        "--seed",
        "7",
        "--out",
        str(project / "s"),
    ]
    assert main(words) == 0
    recipe = yaml.safe_load((project / "s" / "recipe.json").read_text())
    assert (recipe["train"]["steps"], recipe["seed"]) == (3, 7)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train", "hotel"], "no 'hotel' in recipes of params.yaml; it has: "),
        (["train", "nice", "--workers", "9"], "--workers 9: recipes.nice has 4 logical workers"),
        (["train", "nice", "--workers", "two"], "must be a number of processes, 0 or more, not 'two'"),
        (["train", "nice", "--workers", "3-2"], "or a range from 1 up as in 1-4, not '3-2'"),
        (["train", "nice", "--workers", "2-9"], "--workers 9: recipes.nice has 4 logical workers"),
        (["train", "nice", "--seed", str(2**64)], "argument --seed: must be a number from 0 to 2^63 - 1"),
        (
            ["train", "nice", "--out", "."],
            "which this command did not write; move that, or name another directory",
        ),
        (["train", "nice", "--out", "params.yaml/x"], "params.yaml/x cannot be written: Not a directory"),
        (["train", "nice", "--out", "/proc/x"], "/proc/x cannot be written: "),
        (["train", "nice", "--out", "x" * 240], "File name too long; name another"),
        (["train", "nice", "--steps=-5"], "argument --steps: must be 1 or more optimiser steps, not '-5'"),
        (["prepare", "faces"], "no 'faces' in datasets of params.yaml"),
        (["count"], "count needs either files or --corpus NAME"),
        (["count", "--corpus", "v", "--tokenizer", "word"], "--tokenizer: not valid beside --corpus v"),
        (["count", "--corpus", "v", "--whole-files"], "--whole-files: not valid beside --corpus v"),
        (["count", "missing.txt", "--workers", "0"], "missing.txt"),
        (
            ["sample", "nice", "--model", "nowhere", "--out", "there"],
            "nowhere/recipe.json: no such file or directory; name the directory of a trained model, or train one",
        ),
        (["sample", "nice", "--model", "nowhere"], "name where with --out DIR"),
        (["sample", "nice", "--seed", "3"], "name where with --out DIR"),
        (["train", "nice", "--steps", "3"], "name where it goes with --out DIR"),
        (["evaluate", "nice", "--model", "nowhere"], "name where the metrics go with --out FILE"),
        (["evaluate", "nice", "--model", "m", "--out", "o.json"], "--model and --samples go together"),
        (
            ["--root", "nowhere", "train", "nice"],
            "nowhere: no such directory; go to the root of the project",
        ),
        (["unknown"], "invalid choice: 'unknown'"),
        (["count", "params.yaml", "--out", "artifacts"], "'artifacts' is a directory; name a file in it"),
        (
            ["count", "params.yaml", "--out", "params.yaml/x"],
            "params.yaml/x cannot be written: Not a directory; name another",
        ),
        (["count", "params.yaml", "--out", "/proc/x"], "/proc/x cannot be written: "),
        (["count", "params.yaml", "--out", "x" * 300], "File name too long; name another"),
        (
            ["count", "text.txt", "--out", "text.txt"],
            "text.txt: this is the input text.txt, or holds it, or lies below it; name another output",
        ),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(words, complaint, project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert status_of(words) == 2
    said = capsys.readouterr().err
    assert complaint in said.splitlines()[-1]
    assert "Traceback" not in said


def status_of(words: list[str]) -> int | str | None:
    """The exit status of `genpipe WORDS`, without the seconds of a process of its own."""
    with pytest.raises(SystemExit) as end:
        sys.exit(main(words))
    return end.value.code


def changed(project: Path, root: Path, change: Callable[[dict], object]) -> list[str]:
    """The words that name a project with the data and models of ours, and other parameters."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    change(params)
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "artifacts").symlink_to(project / "artifacts")
    return ["--root", str(root)]


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        ({"depth": 3}, "train.network.depth: not an argument of NICE, which takes: num_couplings"),
        ({"hidden_dim": "wide"}, "train.network.hidden_dim: Input should be a valid integer"),
        (
            {"hidden_dim": -2},
            "train.network.hidden_dim: Input should be greater than or equal to 1, not -2",
        ),
    ],
)
def test_a_network_that_cannot_be_is_an_error_before_anything_runs(
    network, complaint, project, tmp_path, capsys
):
    root = changed(project, tmp_path, lambda p: p["recipes"]["nice"]["train"].update(network=network))
    assert main([*root, "train", "nice", "--workers", "2"]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / ".genpipe" / "runs").exists()


def test_a_project_with_more_workers_than_slices_trains_on_as_many_as_there_are_slices():
    cluster = Cluster(workers=9)
    assert number_of_workers("nice", None, cluster, 4) == (4, 4)
    assert number_of_workers("nice", (0, 0), cluster, 4) == (0, 0)
    assert number_of_workers("nice", None, Cluster(workers=1, max_workers=3), 4) == (1, 3)
    assert number_of_workers("nice", None, Cluster(workers=3, max_workers=2), 4) == (3, 3)


@pytest.fixture(scope="module")
def trained_ogan(project) -> Path:
    """A model of the project, and its judge."""
    for name in ("classifier", "ogan"):
        assert main(["--root", str(project), "train", name, "--workers", "0"]) == 0
    return project / "artifacts" / "models" / "ogan"


def test_of_a_handful_of_test_images_only_the_comparison_is_left_out(project, trained_ogan, tmp_path, capsys):
    shutil.copytree(project / "artifacts", tmp_path / "artifacts")
    shutil.copy(project / "params.yaml", tmp_path)
    images = tmp_path / "artifacts" / "encoded" / "images"
    for part in ("images", "labels"):
        np.save(images / f"test_{part}.npy", np.load(images / f"test_{part}.npy")[:20])
    root = ["--root", str(tmp_path)]
    for name in ("classifier", "ogan"):
        assert main([*root, "train", name, "--workers", "0"]) == 0
        assert main([*root, "sample", name]) == 0
    assert main([*root, "evaluate", "classifier"]) == 0
    assert main([*root, "evaluate", "ogan"]) == 0
    printed = capsys.readouterr().out
    assert "ogan: left out: frechet_classifier: 16 features need more than 16 images of each kind" in printed
    metrics = json.loads((tmp_path / "artifacts/metrics/ogan.json").read_text())
    assert "reconstruction_mse" in metrics
    assert "frechet_classifier" not in metrics


def test_a_judge_of_other_images_is_refused(project, trained_ogan, tmp_path, capsys):
    shutil.copytree(project / "artifacts", tmp_path / "artifacts")
    for split in ("train", "test"):
        file = tmp_path / "artifacts" / "encoded" / "images" / f"{split}_images.npy"
        large = tmp_path / "artifacts" / "encoded" / "large" / f"{split}_images.npy"
        large.parent.mkdir(exist_ok=True)
        np.save(large, np.load(file).repeat(2, 2).repeat(2, 3))
    tiny.describe(large.parent, "images", {"image_shape": [1, 16, 16], "num_images": 48})
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["recipes"]["ogan"]["data"] = "encoded/large"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    root = ["--root", str(tmp_path)]
    assert main([*root, "train", "ogan", "--workers", "0"]) == 0
    assert main([*root, "sample", "ogan"]) == 2
    assert (
        "models/classifier knows images of (1, 8, 8) pixels, and these have (1, 16, 16)"
        in capsys.readouterr().err
    )


def test_a_model_is_sampled_as_it_was_trained(project, trained_ogan, tmp_path, capsys):
    """Its own card says how it is built; another model, or one of other data, is refused."""
    root = changed(
        project, tmp_path, lambda p: p["recipes"]["ogan"]["train"]["network"].update(latent_dim=16)
    )
    out = str(tmp_path / "samples")
    assert main([*root, "sample", "ogan", "--model", str(trained_ogan), "--out", out]) == 0
    assert main([*root, "sample", "nice", "--model", str(trained_ogan), "--out", out]) == 2
    assert "the model of this model is ogan, not nice" in capsys.readouterr().err


def test_a_full_disk_is_one_line(project, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights.safetensors")

    monkeypatch.setattr("genpipe.experiment.export", full)
    assert main(["--root", str(project), "train", "nice", "--workers", "0"]) == 69
    assert "genpipe: weights.safetensors: No space left on device" in capsys.readouterr().err


def test_a_truncated_model_is_named_and_nothing_is_written(project, tmp_path):
    assert (
        main(["--root", str(project), "train", "nice", "--workers", "0", "--out", str(tmp_path / "m")]) == 0
    )
    weights = tmp_path / "m" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    done = run("sample", "nice", "--model", str(tmp_path / "m"), "--out", str(tmp_path / "s"), cwd=project)
    assert done.returncode == 2
    assert "weights.safetensors: not a whole safetensors file" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def small(directory: Path) -> Path:
    """A folder with a text and links to it, and a model directory with a person's notes."""
    (directory / "real").mkdir()
    (directory / "linked").symlink_to("real")
    (directory / "real" / "x.txt").write_text("a b\n")
    (directory / "words.tsv").write_text("a\t1\n")
    (directory / "link.txt").symlink_to("real/x.txt")
    os.link(directory / "real" / "x.txt", directory / "hard.txt")
    (directory / "model").mkdir()
    for name in ("recipe.json", "weights.safetensors", "card.md"):
        (directory / "model" / name).write_text("{}")
    shutil.copytree(directory / "model", directory / "noted")
    (directory / "noted" / "notes.md").write_text("years of work")
    return directory


def content(directory: Path) -> dict[str, bytes]:
    """The bytes of all files, those of leases and earlier trainings left out."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if ".genpipe" not in path.parts}


@pytest.mark.parametrize(
    "words",
    [
        ["count", "linked/x.txt", "--out", "real/x.txt"],
        ["count", "real/x.txt", "--out", "linked/x.txt"],
        ["count", "link.txt", "--out", "real/x.txt"],
        ["count", "real/x.txt", "--out", "link.txt"],
        ["count", "real/x.txt", "--out", "hard.txt"],
        ["count", "real/*.txt", "--out", "link.txt"],
        ["count", "linked", "--out", "real/counts.parquet"],
        [
            "count",
            "real/x.txt",
            "--tokenizer",
            "lexicon",
            "--tokenizer-file",
            "words.tsv",
            "--out",
            "words.tsv",
        ],
        ["tokenizer", "train", "--counts", "link.txt", "--kind", "bpe", "--size", "9", "--out", "real/x.txt"],
        ["sample", "nice", "--model", "model", "--out", "model"],
        ["sample", "nice", "--model", "model", "--out", "model/samples"],
        ["sample", "nice", "--model", "model", "--out", "noted"],
        ["train", "nice", "--out", "noted"],
        ["train", "nice", "--out", "artifacts/encoded/images/model"],
        ["train", "nice", "--out", "artifacts"],
        ["evaluate", "nice", "--model", "model", "--samples", "real", "--out", "model/recipe.json"],
        ["evaluate", "nice", "--model", "model", "--samples", "real", "--out", "real/new.json"],
    ],
    ids=" ".join,
)
def test_no_command_writes_over_its_input_or_over_anything_of_a_person(
    words, project, tmp_path, monkeypatch, capsys
):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(small(tmp_path))
    before = content(tmp_path)
    try:
        status = main(words)
    except SystemExit as ended:  # argparse
        status = ended.code
    assert status == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "name another" in told
    assert content(tmp_path) == before
