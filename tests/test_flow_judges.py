"""Judges of flows: the error of the inverse and of the log-determinant, and samples by temperature."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genpipe.capabilities import Embeds, Example, Invertible, Samples
from genpipe.data.loader import Data, derived_seed
from genpipe.errors import BadInput
from genpipe.evaluation.features import embedded
from genpipe.evaluation.frechet import frechet_distance
from genpipe.evaluation.inversion import jacobian, judge_inversion, judge_log_det
from genpipe.evaluation.judge import NotMeasured, Trial, judged
from genpipe.evaluation.judges import JUDGES
from genpipe.evaluation.temperatures import judge_temperatures
from genpipe.metrics import find
from genpipe.nn.pixels import DEQUANTISED
from genpipe.sampling.draw import conditions, draw, whole
from genpipe.sampling.images import samples_by_temperature
from genpipe.sampling.showing import Showing
from genpipe.sampling.temperatures import TEMPERATURES, temperatures_of
from tests import tiny
from tests.reference import registered

__all__ = ["registered"]
pytestmark = pytest.mark.usefixtures("registered")
FLOWS = tiny.names_with(Invertible, among=tiny.MODELS)
LEAST = 1e-3  # that float32 may lose; a byte is 1/256


class Mean(Embeds):
    """Two features: mean brightness of the halves of an image."""

    def embed(self, x):
        return torch.stack([half.flatten(1).mean(1) for half in x["images"].chunk(2, 2)], 1)


def trained(name: str, root: Path) -> tuple[Any, Data]:
    """A model whose parameters are not those of a start, which may be zeros."""
    data = tiny.data_for(name, root)
    fitted = tiny.trainer_of(name, data, root / "run")
    fitted.fit()
    return fitted.recipe.eval(), data


def trial_of(model: Any, data: Data, kind: str = "images") -> Trial:
    return Trial(model, data, kind, "test", Path(), Mean, None, 0)


def trial(name: str, root: Path) -> Trial:
    return trial_of(*trained(name, root), tiny.kind_of(name))


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_is_inverted_and_has_the_determinant_of_its_jacobian(name, tmp_path):
    found = trial(name, tmp_path)
    assert 0 <= judge_inversion(found)["inversion_error"] < LEAST
    if found.recipe.tightness == "exact":
        assert 0 <= judge_log_det(found)["log_det_error"] < 1e-8
    else:
        with pytest.raises(NotMeasured, match=r"log_det_error: .* is an estimate"):
            judge_log_det(found)


class Wrong(Samples, Invertible):
    """z = 2x, with another inverse and another log-determinant."""

    pixels = DEQUANTISED

    def __init__(self, factor: float, off: float) -> None:
        self.factor, self.off = factor, off

    def double(self) -> "Wrong":
        return self

    def forward(self, x):
        z = 2 * x["images"].flatten(1)
        return z, (np.log(2) * z.shape[1] + self.off) * torch.ones(len(z), dtype=z.dtype)

    def inverse(self, z, given):
        return {"images": (z * self.factor).unflatten(1, (1, tiny.SIDE, tiny.SIDE))}

    def prior_log_prob(self, z, given):
        return z.sum(1)

    def sample(self, n, given):
        return {"images": torch.rand(n, 1, tiny.SIDE, tiny.SIDE)}


def test_what_is_wrong_is_found_by_how_much(tmp_path):
    data = tiny.data_for("nice", tmp_path)
    brightest = (float(whole(data, "test")["images"][:100].max()) + 1) / 256
    error = judge_inversion(trial_of(Wrong(0.49, 0.25), data))["inversion_error"]
    assert error == pytest.approx(0.02 * brightest, abs=0.02 / 256)
    assert judge_log_det(trial_of(Wrong(0.5, 0.25), data))["log_det_error"] == pytest.approx(0.25)


def test_an_inverse_that_is_no_number_is_no_metric(tmp_path):
    data = tiny.data_for("nice", tmp_path)
    with pytest.raises(NotMeasured, match=r"inversion_error: the inverse .* is not finite"):
        judge_inversion(trial_of(Wrong(float("inf"), 0), data))


def test_an_image_of_too_many_numbers_has_no_jacobian():
    images = tiny.Pictures(torch.zeros(3, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(
        NotMeasured, match=r"an example of 3,072 numbers has 9,437,184; 1,024 numbers are the most"
    ):
        judge_log_det(trial_of(Wrong(0.5, 0), images))  # pyright: ignore[reportArgumentType]


def test_the_jacobian_is_that_of_autograd(tmp_path):
    model, data = trained("glow", tmp_path)
    model = copy.deepcopy(model).double()
    one = {"images": torch.rand(1, *data.facts["image_shape"], dtype=torch.float64)}
    expected = torch.autograd.functional.jacobian(lambda v: model.forward({"images": v})[0][0], one["images"])
    assert torch.allclose(jacobian(model, one, "images"), expected.flatten(1), atol=1e-12)


def test_the_judges_leave_the_model_and_the_random_numbers_as_they_are(tmp_path):
    found = trial("glow", tmp_path)
    before, state = copy.deepcopy(found.recipe.state_dict()), torch.random.get_rng_state()
    for judge in (judge_inversion, judge_log_det, judge_temperatures):
        judge(found)
    after = found.recipe.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ["nice", "glow_class"])
def test_the_distance_by_temperature_is_that_of_samples_of_this_temperature(name, tmp_path):
    found = trial(name, tmp_path)
    metrics = judge_temperatures(found)
    images = whole(found.data, "test")["images"]
    n = len(images) // 2
    real = embedded(Mean(), images[:n])
    assert metrics["frechet_temperature_num_images"] == n
    given = conditions(found.recipe, found.data, n)
    for percent in (50, 70, 80, 90, 100):
        made = draw(found.recipe, n, 0, given, {"temperature": percent / 100})["images"]
        assert metrics[f"frechet_temperature_{percent}"] == pytest.approx(
            frechet_distance(real, embedded(Mean(), DEQUANTISED.to_bytes(made)))
        )
    assert metrics["frechet_temperature_real"] == pytest.approx(
        frechet_distance(real, embedded(Mean(), images[n : 2 * n]))
    )
    assert all(find(key) for key in metrics)


def test_the_distance_by_temperature_keeps_the_other_options_of_samples(tmp_path):
    model = Wrong(0.5, 0)
    asked = []

    def sample(n: int, given: Example, temperature: float = 1.0, flipped: bool = False) -> Example:
        asked.append(flipped)
        return {"images": torch.zeros(n, 1, 8, 8)}

    model.sample = sample
    found = trial_of(model, tiny.data_for("nice", tmp_path))
    judge_temperatures(replace(found, how={"flipped": True}))
    assert asked
    assert all(asked)


def test_a_flow_without_a_temperature_has_no_distances_by_it(tmp_path):
    assert judge_temperatures(trial_of(Wrong(0.5, 0), tiny.data_for("nice", tmp_path))) == {}


def test_temperatures_need_more_images_than_features(tmp_path):
    model, data = trained("nice", tmp_path)
    few = tiny.Pictures(whole(data, "test")["images"][:4])
    with pytest.raises(
        NotMeasured, match=r"2 features need more than 2 images .* there are 2; keep more images"
    ):
        judge_temperatures(trial_of(model, few))  # pyright: ignore[reportArgumentType]


def test_all_metrics_of_a_flow_have_a_text(tmp_path):
    model, data = trained("nice", tmp_path)
    np.save(tmp_path / "samples.npy", model.pixels.to_bytes(draw(model, 20, 0)["images"]).numpy())
    found = Trial(model, data, "images", "test", tmp_path, Mean, None, 0)
    metrics = judged(found, JUDGES, "nice")
    assert {"inversion_error", "log_det_error", "frechet_temperature_80"} <= metrics.keys()
    assert [key for key in metrics if not find(key)] == []


def showing(name: str, root: Path, **changes) -> Showing:
    model, data = trained(name, root)
    common = {"how": {}, "speller": None, "num": 4, "seed": 3}
    return Showing(recipe=model, data=data, kind="images", directory=root, **{**common, **changes})


@pytest.mark.parametrize(
    ("name", "how", "least"),
    [("glow_class", {"temperature": 0.3}, 0.0), ("pixelcnn", {"cached": False}, 0.5)],
)
def test_a_row_of_the_panel_is_a_temperature_and_a_column_a_noise(name, how, least, tmp_path):
    shown = showing(name, tmp_path, how=how)
    (row,) = samples_by_temperature(shown)
    temperatures = [t for t in TEMPERATURES if t >= least]
    picture = np.array(Image.open(tmp_path / row.file))
    for place, temperature in enumerate(temperatures):
        assert f"{temperature:g}" in row.caption
        torch.manual_seed(derived_seed(3, "temperatures"))
        with torch.no_grad():
            made = shown.recipe.sample(12, conditions(shown.recipe, shown.data, 12), temperature=temperature)[
                "images"
            ]
        stored = shown.recipe.pixels.to_bytes(made)[:, 0].numpy()
        top = place * (tiny.SIDE + 2) + 2
        for column in (0, 11):
            left = column * (tiny.SIDE + 2) + 2
            assert np.array_equal(picture[top : top + tiny.SIDE, left : left + tiny.SIDE], stored[column])
    assert picture.shape == (len(temperatures) * 10 + 2, 12 * 10 + 2)


def test_a_model_without_a_temperature_has_no_such_panel(tmp_path):
    assert list(samples_by_temperature(showing("ogan", tmp_path))) == []


def test_an_option_that_is_not_valid_is_refused_before_anything_is_drawn(tmp_path):
    model, _ = trained("nice", tmp_path)
    with pytest.raises(BadInput, match=r"sample\.how\.heat: not an option of NICE\.sample"):
        temperatures_of(model, {"heat": 1})
