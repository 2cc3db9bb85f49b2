import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from genpipe.capabilities import Embeds, LogProb, Samples
from genpipe.cli import main
from genpipe.evaluation import couplets
from genpipe.evaluation.frechet import frechet_distance, judge_images
from genpipe.evaluation.generation import targets
from genpipe.evaluation.judge import Judge, NotMeasured, Trial, judged
from genpipe.evaluation.likelihood import bits_per_dim
from genpipe.evaluation.pixels import energy_distance
from genpipe.sampling.pictures import GAP, grid
from tests import tiny

PIXELWISE = [f"pixel_distance{end}" for end in ("", "_real", "_gaussian", "_num_images")]


class Constant(LogProb):
    def __init__(self, nats):
        self.nats = nats

    def log_prob(self, x):
        assert 0 <= x["images"].min() <= x["images"].max() < 1
        return torch.full((len(x["images"]),), self.nats)


def bits(model, images):
    trial = Trial(model, tiny.Pictures(images), "images", "test", Path(), Quadrants, None, 0)
    return bits_per_dim(trial)["bits_per_dim"]


def test_bits_per_dim_has_the_value_of_the_nice_paper():
    images = torch.randint(0, 256, (150, 1, 28, 28), dtype=torch.uint8)
    assert bits(Constant(1980.50), images) == pytest.approx(4.3555, abs=1e-4)
    assert bits(Constant(0.0), images) == pytest.approx(8)


def test_the_frechet_distance_of_gaussians_with_diagonal_covariance():
    rng = np.random.default_rng(0)
    a = rng.normal([0, 0, 0], [1, 2, 3], (200_000, 3))
    b = rng.normal([1, 0, -1], [2, 2, 1], (200_000, 3))
    assert frechet_distance(a, b) == pytest.approx(1 + 1 + 1 + 0 + 4, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


class Quadrants(Embeds):
    """Mean brightness of the four quarters of an image."""

    def embed(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x["images"], 2).flatten(1)


def judged_images(test, drawn):
    trial = Trial(
        Drawn(), tiny.Pictures(test), "images", "test", Path(), Quadrants, None, 0, {"images": drawn}
    )
    return judge_images(trial)


class Drawn(Samples):
    def sample(self, n, given):
        raise AssertionError("samples are in files")


def write_classes(folder: Path, classes: int = 5, number: int = 120) -> None:
    """Classes of noise, each of its own brightness."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(number):
            pixels = rng.integers(40 * label, 40 * label + 60, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{i}.png")


def write_project(root: Path, **recipes: dict) -> list[str]:
    block = {"kind": "image_folder", "source": "pics", "image_size": 8, "test_share": 0.5}
    values = {"cluster": {"workers": 0}, "datasets": {"pics": block}, "recipes": recipes}
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    return ["--root", str(root)]


def test_real_images_are_near_real_ones_whatever_the_order_of_their_classes(tmp_path):
    """Prepared class by class, half of the classes would be compared with the other half."""
    write_classes(tmp_path / "pics")
    assert main([*write_project(tmp_path), "prepare", "pics"]) == 0
    test = torch.from_numpy(np.load(tmp_path / "artifacts/datasets/pics/test_images.npy"))
    perfect = torch.from_numpy(np.load(tmp_path / "artifacts/datasets/pics/train_images.npy"))
    bright = perfect.flatten(1).double().mean(1)
    lacking = perfect[bright < bright.median()]  # half of the classes are never drawn
    found, worse = (judged_images(test, drawn) for drawn in (perfect, lacking))
    assert found["frechet_real_vs_real"] < worse["frechet_classifier"] / 10
    assert found["frechet_classifier"] < worse["frechet_classifier"] / 10


def test_fewer_images_than_features_are_not_compared():
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    message = r"4 features need more than 4 images .* sample.num and half of the images for testing .* give 4; raise it"
    with pytest.raises(NotMeasured, match=message):
        judged_images(images, images[:4])
    assert judged_images(images, images[:5])["frechet_num_images"] == 5


def test_images_without_labels_are_evaluated_by_what_needs_none(tmp_path, capsys):
    write_classes(tmp_path / "all", classes=2, number=40)
    (tmp_path / "pics").mkdir()
    for path in (tmp_path / "all").rglob("*.png"):
        path.rename(tmp_path / "pics" / f"{path.parent.name}-{path.name}")
    block = tiny.block("nice") | {"data": "datasets/pics", "judge": "none"}
    root = write_project(tmp_path, nice=block)
    for words in (["prepare", "pics"], ["train", "nice"], ["sample", "nice"], ["evaluate", "nice"]):
        assert main([*root, *words]) == 0, capsys.readouterr().err
    written = json.loads((tmp_path / "artifacts/metrics/nice.json").read_text())
    assert written.keys() == {"bits_per_dim", "inversion_error", "log_det_error", *PIXELWISE}
    reason = "recipes.nice.judge names no model in whose features images can be compared"
    line = f"nice: left out: frechet_classifier and other distances: {reason}\n"
    assert capsys.readouterr().out.count(line) == 1


def test_a_metric_that_is_no_number_is_left_out_and_the_others_stay(tmp_path, capsys):
    data = tiny.data_for("nice", tmp_path)
    measured = {"accuracy": 0.5, "level_ending": math.nan, "perplexity": math.inf}
    judge = Judge((), ("images",), lambda _: measured)
    trial = Trial(None, data, "images", "test", tmp_path, lambda: tiny.recipe_of("classifier", data), None, 0)
    assert judged(trial, (judge,), "own") == {"accuracy": 0.5}
    reason = "the split test has no case of it, or the model gives no finite number"
    assert capsys.readouterr().out == (
        f"own: left out: level_ending: nan: {reason}\nown: left out: perplexity: inf: {reason}\n"
    )


def test_samples_without_a_judge_are_compared_pixel_by_pixel(tmp_path, capsys):
    """Of a GAN on a person's own pictures nothing else can be measured."""
    write_classes(tmp_path / "pics", classes=2, number=40)
    block = tiny.block("wgan_gp") | {"data": "datasets/pics", "judge": "none", "sample": {"num": 4}}
    root = write_project(tmp_path, wgan_gp=block)
    for words in (["prepare", "pics"], ["train", "wgan_gp"], ["sample", "wgan_gp"], ["evaluate", "wgan_gp"]):
        assert main([*root, *words]) == 0, capsys.readouterr().err
    metrics = json.loads((tmp_path / "artifacts/metrics/wgan_gp.json").read_text())
    assert metrics.keys() == set(PIXELWISE)
    n = int(metrics["pixel_distance_num_images"])
    test = np.load(tmp_path / "artifacts/datasets/pics/test_images.npy") / 255
    made = np.load(tmp_path / "artifacts/samples/wgan_gp/samples.npy") / 255
    for name, other in (("pixel_distance", made[:n]), ("pixel_distance_real", test[n : 2 * n])):
        between = np.mean([apart(x, y) for x in test[:n] for y in other])
        within = [
            np.mean([apart(x, y) for x, y in itertools.combinations(part, 2)]) for part in (test[:n], other)
        ]
        assert metrics[name] == pytest.approx(2 * between - sum(within), abs=1e-5)


def apart(x, y):
    return np.sqrt(np.square(x - y).mean())


def test_the_energy_distance_is_0_on_average_for_equal_distributions_and_a_mean_image_is_far():
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=(2, 20, 30)) for _ in range(200)]
    equal = [energy_distance(a, b) for a, b in pairs]
    assert abs(np.mean(equal)) < 3 * np.std(equal) / 200**0.5
    assert energy_distance(pairs[0][0], np.zeros((20, 30))) > 2 > 5 * max(equal)


def test_a_model_of_which_nothing_can_be_measured_is_an_error(tmp_path, capsys):
    write_classes(tmp_path / "pics", classes=2, number=40)
    block = tiny.block("wgan_gp") | {"data": "datasets/pics", "judge": "none", "sample": {"num": 1}}
    root = write_project(tmp_path, wgan_gp=block)
    for words in (["prepare", "pics"], ["train", "wgan_gp"], ["sample", "wgan_gp"]):
        assert main([*root, *words]) == 0, capsys.readouterr().err
    assert main([*root, "evaluate", "wgan_gp"]) == 2
    assert "wgan_gp: every metric is left out" in capsys.readouterr().err
    assert not (tmp_path / "artifacts/metrics/wgan_gp.json").exists()


def test_another_judge_without_features_is_refused(tmp_path, capsys):
    """Samples are drawn before it is named: `sample` looks for their neighbours in its features, `evaluate` compares in them."""
    write_classes(tmp_path / "pics", classes=2, number=40)
    blocks = {
        name: tiny.block(name) | {"data": "datasets/pics", "judge": "none"} for name in ("nice", "wgan_gp")
    }
    root = write_project(tmp_path, **blocks)
    for words in (["prepare", "pics"], ["train", "nice"], ["sample", "nice"]):
        assert main([*root, *words]) == 0, capsys.readouterr().err
    write_project(tmp_path, **{**blocks, "nice": blocks["nice"] | {"judge": "models/wgan_gp"}})
    for command in ("sample", "evaluate"):
        assert main([*root, command, "nice"]) == 2
        said = capsys.readouterr().err
        assert "recipes.nice.judge: models/wgan_gp has no features to compare images by" in said


def test_unigram_cross_entropy_counts():
    train, test = torch.tensor([0, 0, 1]), torch.tensor([0, 1])
    assert couplets.unigram_cross_entropy(train, test, 2) == pytest.approx(
        -(math.log(3 / 5) + math.log(2 / 5)) / 2
    )


def test_couplet_forms_are_counted_by_position():
    tones = dict(zip("東西南北", "平平仄仄", strict=True))
    pairs = [("東西", "南北"), ("東東", "南西")]
    assert couplets.tone_opposition(pairs, tones) == 0.5
    ends = [("天天", last) for last in ("天地", "天風", "地風", "天無")]
    assert couplets.level_endings(ends, {"地": "仄", "風": "平"}) == pytest.approx(2 / 3)
    assert couplets.antithesis([("一山", "二水"), ("山三", "水人")], "numeral") == 0.5
    assert couplets.shared_characters([("一山", "山水"), ("山", "水")]) == 0.5
    assert couplets.repeated_characters([("一山", "水水"), ("山", "水")]) == 0.5


def test_shuffling_keeps_the_lines():
    lines, lengths = torch.arange(40).view(20, 2), torch.full((20,), 2)
    batch = {"source": lines, "target": lines, "source_lengths": lengths, "target_lengths": lengths}
    (mixed,) = couplets.shuffled([batch], seed=0)
    assert torch.equal(mixed["target"], batch["target"])
    assert not torch.equal(mixed["source"], batch["source"])
    assert torch.equal(mixed["source"].sort(0).values, batch["source"])


def test_a_grid_puts_images_side_by_side_with_grey_between_them():
    assert 0 < GAP < 255
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    assert grid(images, columns=2, gap=1)[..., 0].tolist() == [
        [GAP] * 5,
        [GAP, 0, GAP, 1, GAP],
        [GAP] * 5,
        [GAP, 2, GAP, 255, 255],
        [GAP, GAP, GAP, 255, 255],
    ]


def test_a_text_with_a_label_is_judged_to_its_end_mark():
    x = {"ids": torch.tensor([[3, 4, 9], [5, 9, 9]]), "lengths": torch.tensor([2, 1])}
    ids, keep = targets(x, "tagged", {"pad": 9, "end": 8})
    assert ids[keep].tolist() == [3, 4, 8, 5, 8]
