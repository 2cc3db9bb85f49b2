"""The best checkpoint by a metric of a judge on rows that are held out: the same on any number of processes and after a kill."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from genpipe.cli import main
from genpipe.data.images import Images
from genpipe.data.loader import Held
from genpipe.data.points import Points
from genpipe.dependencies import code_for
from genpipe.errors import BadInput
from genpipe.files import sha256
from genpipe.training.checkpoint import latest_checkpoint
from genpipe.training.log import rows_of
from genpipe.training.runs import Run
from tests import tiny, toys

METRIC = "validation.frechet_classifier"
BEST = {"metric": METRIC, "num": 30}


def project_in(root: Path, **changes) -> Path:
    directory = tiny.write_images(root / "artifacts" / "encoded" / "images")
    rng = np.random.default_rng(1)
    labels = np.arange(160, dtype=np.uint8) % 2
    images = rng.integers(0, 80, (160, 1, tiny.SIDE, tiny.SIDE), dtype=np.uint8)
    images[labels == 0, :, : tiny.SIDE // 2] += 150
    np.save(directory / "train_images.npy", images)
    np.save(directory / "train_labels.npy", labels)
    classifier = tiny.block("classifier") | {"judge": "none"}
    classifier["train"]["network"] = {**classifier["train"]["network"], "feature_dim": 8}
    training = {"steps": 8, "checkpoint_every": 2, "best": BEST, "batches": {"validation": 80}, "ema": 0.5}
    ogan = tiny.block("ogan", **{**training, **changes}) | {"validator": "models/classifier"}
    datasets = {"tiny": {"kind": "digits", "source": "data/digits"}}
    (root / "params.yaml").write_text(
        yaml.safe_dump({"datasets": datasets, "recipes": {"classifier": classifier, "ogan": ogan}})
    )
    return root


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = project_in(tmp_path_factory.mktemp("validated"))
    assert main(["--root", str(root), "train", "classifier", "--workers", "0"]) == 0
    assert main(["--root", str(root), "train", "ogan", "--workers", "0"]) == 0
    return root


def hashes(directory: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted(directory.iterdir())}


def run_of(root: Path, name: str = "ogan") -> Run:
    return Run(next((root / ".genpipe" / "runs").glob(f"{name}-*")))


def values_of(run: Run) -> dict[int, float]:
    rows = rows_of(latest_checkpoint(run).log.text.splitlines())
    return {row["step"]: row[METRIC] for row in rows if METRIC in row}


def test_the_checkpoint_with_the_best_value_is_exported(project):
    run = run_of(project)
    values = values_of(run)
    assert list(values) == [2, 4, 6, 8]
    best = min(values, key=values.__getitem__)
    card = json.loads((project / "artifacts/models/ogan/recipe.json").read_text())
    assert card["step"] == best
    assert latest_checkpoint(run).best.value == values[best]


def test_a_value_is_that_of_the_exported_model_on_the_held_out_rows(project):
    """The average of the weights is what is exported, so it is what is measured."""
    from genpipe.assembly import load_trained
    from genpipe.data.opening import open_data
    from genpipe.evaluation.features import embedded
    from genpipe.evaluation.frechet import frechet_distance
    from genpipe.sampling.draw import draw

    model = load_trained(project / "artifacts/models/ogan").recipe
    judge = load_trained(project / "artifacts/models/classifier").recipe
    data = open_data(project / "artifacts/encoded/images", {"validation": 80})
    held_out = torch.cat([x["images"] for x in data.split("validation")])
    made = model.pixels.to_bytes(draw(model, 30, 1)["images"])
    expected = frechet_distance(embedded(judge, held_out[:30]), embedded(judge, made))
    assert min(values_of(run_of(project)).values()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_other_numbers_of_processes_end_on_the_same_bytes(project, tmp_path, workers):
    root = project_in(tmp_path)
    (root / "artifacts/models").mkdir(parents=True)
    (root / "artifacts/models/classifier").symlink_to(project / "artifacts/models/classifier")
    words = ["train", "ogan", "--workers", workers, "--executor", "local"]
    assert main(["--root", str(root), *words]) == 0
    assert hashes(root / "artifacts/models/ogan") == hashes(project / "artifacts/models/ogan")
    assert values_of(run_of(root)) == values_of(run_of(project))


def test_a_resumed_training_finds_the_same_best(tmp_path):
    """The best step lies before the interruption: the metric of the toy rises from there on."""
    tried = []

    def trainer(directory: Path):
        made = toys.trainer(Run(directory), best={"metric": "validation.accuracy", "direction": "highest"})
        made.validate = lambda weights: (
            tried.append(made.step) or float(weights["critic.0.weight"].abs().sum())
        )
        return made

    trainer(tmp_path / "whole").fit()
    broken = trainer(tmp_path / "broken")
    play = broken._play_step

    def dies():
        if broken.step == 5:
            raise KeyboardInterrupt
        return play()

    broken._play_step = dies
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    tried.clear()
    trainer(tmp_path / "broken").fit()
    assert tried == [6, 8, 10]
    whole, again = (latest_checkpoint(Run(tmp_path / name)) for name in ("whole", "broken"))
    assert (whole.best, whole.log.text) == (again.best, again.log.text)


def test_a_validation_leaves_the_training_as_it_is(tmp_path):
    toys.trainer(Run(tmp_path / "a")).fit()
    watched = toys.trainer(
        Run(tmp_path / "b"), best={"metric": "validation.accuracy", "direction": "highest"}
    )
    watched.validate = lambda weights: float(torch.randn(()) * weights["critic.0.weight"].sum())
    watched.fit()
    one, other = (latest_checkpoint(Run(tmp_path / name)) for name in "ab")
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_held_out_rows_are_never_trained_on(tmp_path):
    directory = tiny.write_images(tmp_path)
    data, all_of_it = Images(directory, validation=10), Images(directory)
    held_out = torch.cat([x["rows"] for x in data.split("validation")])
    seen = torch.cat([data.train_batch(0, step, 19)["rows"] for step in range(20)])
    assert set(held_out.tolist()) | set(seen.tolist()) == set(range(48))
    assert not set(held_out.tolist()) & set(seen.tolist())
    assert seen.bincount()[seen.unique()].tolist() == [10] * 38
    assert torch.equal(torch.cat([x["rows"] for x in data.split("train")]), seen.unique())
    assert data.splits == ("train", "test")
    assert torch.equal(all_of_it.train_batch(0, 0, 48)["rows"].unique(), torch.arange(48))
    with pytest.raises(BadInput, match="no split 'validation'"):
        next(all_of_it.split("validation"))
    with pytest.raises(BadInput, match="48 of 48 rows would leave none to train on"):
        Images(directory, validation=48)


def test_points_are_held_out_too(tmp_path):
    data = Points(tiny.write_points(tmp_path), validation=5)
    assert sum(len(x["points"]) for x in data.split("validation")) == 5


def test_what_is_held_out_is_a_random_choice_of_both_numbers():
    held = Held.out(100, 1000)
    assert abs(held.validation.mean() - 500) < 100
    assert np.array_equal(held.validation, Held.out(100, 1000).validation)


@pytest.mark.parametrize(
    ("changes", "block", "complaint"),
    [
        ({"best": {"metric": "validation.frechet"}}, {}, "must be known"),
        ({"batches": {}}, {}, "on rows that are held out, and there are none; set train.batches.validation"),
        ({}, {"validator": "none"}, "the recipe's validator names no model"),
        ({"batches": {"validation": 12}}, {}, "8 features need more than 8 images of each kind"),
        (
            {"best": {"metric": "validation.bits_per_dim"}},
            {},
            "is of models with LogProb on images, and this is OGAN",
        ),
        (
            {"best": {"metric": "validation.accuracy"}},
            {},
            "the best 'validation.accuracy' is the highest, not the lowest",
        ),
        ({"best": None}, {}, "recipes.ogan.validator: models/classifier has no effect"),
        ({}, {"validator": "models/ogan"}, "its training would need itself"),
    ],
)
def test_what_cannot_be_validated_is_one_line(changes, block, complaint, project, tmp_path, capsys):
    root = project_in(tmp_path, **changes)
    (root / "artifacts/models").mkdir(parents=True)
    (root / "artifacts/models/classifier").symlink_to(project / "artifacts/models/classifier")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["recipes"]["ogan"] |= block
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    assert main(["--root", str(root), "train", "ogan", "--workers", "0"]) == 2
    error = capsys.readouterr().err
    if complaint == "must be known":
        complaint = "no validation.frechet; there is: validation.frechet_classifier"
    assert complaint in error
    assert error.count("\n") == 1
    assert not (root / "artifacts/models/ogan").exists()


def in_colours(root: Path, validator: Path) -> Path:
    """The project on pictures in colours, with `validator` as its trained classifier."""
    root = project_in(root)
    directory = root / "artifacts/encoded/images"
    for file in ("train_images.npy", "test_images.npy"):
        np.save(directory / file, np.load(directory / file).repeat(3, 1))
    described = json.loads((directory / "data.json").read_text())
    described["facts"]["image_shape"] = [3, tiny.SIDE, tiny.SIDE]
    (directory / "data.json").write_text(json.dumps(described))
    (root / "artifacts/models").mkdir(parents=True)
    (root / "artifacts/models/classifier").symlink_to(validator)
    return root


def test_a_validator_of_other_images_is_one_line(project, tmp_path, capsys):
    root = in_colours(tmp_path, project / "artifacts/models/classifier")
    assert main(["--root", str(root), "train", "ogan", "--workers", "0"]) == 2
    sizes = (
        f"knows images of (1, {tiny.SIDE}, {tiny.SIDE}) pixels, and these have (3, {tiny.SIDE}, {tiny.SIDE})"
    )
    error = capsys.readouterr().err
    assert f"recipes.*.validator: models/classifier {sizes}" in error
    assert error.count("\n") == 1
    assert not (root / "artifacts/models/ogan").exists()


def test_a_validator_without_features_is_one_line(project, tmp_path, capsys):
    root = in_colours(tmp_path, project / "artifacts/models/ogan")
    assert main(["--root", str(root), "train", "ogan", "--workers", "0"]) == 2
    assert (
        "recipes.*.validator: models/classifier has no features to compare images by"
        in capsys.readouterr().err
    )


def test_own_pictures_are_validated_without_a_validator(tmp_path):
    root = project_in(tmp_path, best={"metric": "validation.pixel_distance", "num": 30})
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["recipes"]["ogan"]["validator"] = "none"
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    assert main(["--root", str(root), "train", "ogan", "--workers", "0"]) == 0
    rows = rows_of(latest_checkpoint(run_of(root)).log.text.splitlines())
    values = {row["step"]: row[name] for row in rows if (name := "validation.pixel_distance") in row}
    card = json.loads((root / "artifacts/models/ogan/recipe.json").read_text())
    assert card["step"] == min(values, key=values.__getitem__)
    assert all(0 < value < 1 for value in values.values())


def test_a_training_depends_on_the_code_of_the_judge_that_it_uses(project):
    params = yaml.safe_load((project / "params.yaml").read_text())
    used = code_for("train", "ogan", params)
    assert {"evaluation/frechet", "evaluation/validation", "models/classifier"} <= used.keys()
    assert "evaluation/kernel" not in used
    assert not [name for name in code_for("train", "classifier", params) if name.startswith("sampling")]
