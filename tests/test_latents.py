"""Bounds, probes and modes against closed forms, brute force, or autograd."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genpipe.capabilities import Bounds, Encodes, Samples
from genpipe.evaluation.bounds import bounds, judge_bounds
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.evaluation.plane import gaussian_points, judge_points, modes
from genpipe.evaluation.probe import fitted, judge_probe, nearest_labels, raw
from genpipe.metrics import find
from genpipe.sources.toys import MIXTURES, SHAPES
from tests import tiny

RNG = np.random.default_rng(0)
W = torch.tensor([[1.0, 0.5], [-0.5, 2.0], [0.3, 0.1]], dtype=torch.float64)
VARIANCE = 0.4
normal = torch.distributions.Normal


class Linear(Bounds):
    """x = W z + noise, whose posterior is known; `wrong` shifts the posterior that it draws from."""

    def __init__(self, wrong=0.0):
        self.wrong = wrong

    def log_weights(self, x, num):
        x = x["points"].double()
        precision = torch.eye(2, dtype=torch.float64) + W.T @ W / VARIANCE
        mean = x @ W @ torch.linalg.inv(precision) / VARIANCE + self.wrong
        posterior = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
        z = posterior.sample((num,))
        prior = normal(0.0, 1.0).log_prob(z).sum(-1)
        likelihood = normal(z @ W.T, math.sqrt(VARIANCE)).log_prob(x).sum(-1)
        return (prior + likelihood - posterior.log_prob(z)).T


def exact(x):
    covariance = W @ W.T + VARIANCE * torch.eye(3, dtype=torch.float64)
    density = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance)
    return float(density.log_prob(x["points"].double()).mean())


POINTS = {"points": torch.from_numpy(RNG.normal(size=(150, 3)))}


def test_both_bounds_are_the_likelihood_where_the_posterior_is_the_true_one():
    assert bounds(Linear(), POINTS, 4, 0) == pytest.approx((exact(POINTS), exact(POINTS)), abs=1e-6)


def test_the_gap_of_the_elbo_is_the_divergence_and_more_latents_close_the_other():
    precision = torch.eye(2, dtype=torch.float64) + W.T @ W / VARIANCE
    shift = torch.full((2,), 0.5, dtype=torch.float64)
    divergence = float(shift @ precision @ shift / 2)  # of two Gaussians of one covariance
    few, many = (bounds(Linear(0.5), POINTS, num, 0) for num in (8, 2000))
    assert exact(POINTS) - many[0] == pytest.approx(divergence, rel=0.02)
    assert many[0] < few[1] < many[1] < exact(POINTS) + 0.05
    assert exact(POINTS) - many[1] < 0.2


class Whatever(Bounds):
    """Independent pixels with the frequencies that it is given; latents say nothing."""

    def __init__(self, observes, log_prob):
        self.observes, self.probability = observes, log_prob

    def log_weights(self, x, num):
        return self.probability(x["images"]).flatten(1).sum(1, keepdim=True).expand(-1, num)


def judged(judge, model, data, kind="images", made=None):
    found = judge(Trial(model, data, kind, "test", Path(), lambda: None, None, 0, made))
    assert {name for name in found if find(name) is None} == set()
    return found


def test_a_model_of_bits_has_the_probability_of_its_bits():
    images = torch.from_numpy(RNG.integers(0, 256, (300, 1, 3, 3), dtype=np.uint8))
    share = ((images >= 128).sum(0) + 1).double() / 302
    model = Whatever("bits", lambda x: torch.distributions.Bernoulli(share).log_prob(x.double()))
    found = judged(judge_bounds, model, tiny.Pictures(images))
    assert found["negative_elbo"] == pytest.approx(found["negative_elbo_pixelwise"], rel=1e-9)
    assert found["negative_importance_bound"] == pytest.approx(found["negative_elbo"], rel=1e-9)
    assert (found["bound_num_examples"], found["bound_num_latents"]) == (300, 32)
    assert "bits_per_dim" not in found
    assert found["nats_per_image"] == pytest.approx(found["nats_per_image_pixelwise"], rel=1e-9)


def test_the_bound_of_bits_is_that_of_all_images_not_of_the_first_only():
    images = torch.zeros(620, 1, 2, 3, dtype=torch.uint8)
    images[500:] = 128
    model = Whatever("bits", lambda x: torch.where(x == 1, -2.0, -0.5))
    found = judged(judge_bounds, model, tiny.Pictures(images))
    assert found["negative_elbo"] == pytest.approx(6 * 0.5)
    assert found["nats_per_image"] == pytest.approx(6 * (500 * 0.5 + 120 * 2) / 620)


def test_a_model_of_values_is_measured_on_bytes():
    images = torch.from_numpy(RNG.integers(0, 256, (600, 1, 3, 3), dtype=np.uint8))
    found = judged(
        judge_bounds, Whatever("values", torch.zeros_like), tiny.Pictures(images)
    )  # density 1 on [0, 1)
    assert found["negative_elbo"] == pytest.approx(9 * math.log(256))
    assert found["bits_per_dim"] == pytest.approx(8)
    assert found["bound_num_examples"] == 500


class Points:
    """Labelled points in the plane."""

    def __init__(self, train, test, labels=None, facts=None):
        self.parts = {"train": train, "test": test}
        self.labels = labels or {}
        self.facts = {"dim": 2} | (facts or {})

    def split(self, name):
        labels = {"labels": self.labels[name]} if self.labels else {}
        return iter([{"points": self.parts[name], **labels}])


class Drawn(Samples):
    def sample(self, n, given):
        raise AssertionError("samples are in files")


class Itself(Encodes):
    def encode(self, x):
        return x["points"]


def test_the_nearest_code_is_found_by_looking_at_all():
    train, test = torch.from_numpy(RNG.normal(size=(40, 3))), torch.from_numpy(RNG.normal(size=(30, 3)))
    labels = torch.arange(40)
    brute = [min(range(40), key=lambda i: math.dist(train[i], x)) for x in test.tolist()]
    assert nearest_labels(train, test, labels).tolist() == brute


def test_the_nearest_picture_is_found_among_almost_equal_ones():
    """A picture is nearer to itself than to one with another grey in one pixel: 1 of some 10⁷ in the square of the distance."""
    pictures = torch.from_numpy(RNG.integers(0, 255, (200, 1, 28, 28), dtype=np.uint8))
    almost = pictures.clone()
    almost[:, 0, 0, 0] += 1
    train, test = raw({"images": torch.cat([almost, pictures])}), raw({"images": pictures})
    assert nearest_labels(train, test, torch.arange(400)).tolist() == list(range(200, 400))


def test_a_linear_probe_is_at_the_minimum_of_its_loss():
    x, labels = RNG.normal(size=(90, 4)), RNG.integers(0, 3, 90)
    weight, bias = (torch.from_numpy(part).requires_grad_() for part in fitted(x, labels))
    logits = torch.from_numpy(x) @ weight + bias
    loss = F.cross_entropy(logits, torch.from_numpy(labels), reduction="sum") + weight.square().sum() / 2
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 1e-2


def test_codes_are_probed():
    train, test = (torch.from_numpy(RNG.normal(size=(n, 2))) for n in (200, 150))
    labels = {"train": (train[:, 0] > 0).long(), "test": (test[:, 0] > 0).long()}
    found = judged(judge_probe, Itself(), Points(train, test, labels, {"num_classes": 2}), "points")
    assert found["probe_accuracy"] > 0.95
    assert found["neighbour_accuracy"] == found["neighbour_accuracy_raw"] > 0.9
    assert found["probe_accuracy_majority"] < 0.6
    with pytest.raises(NotMeasured, match="no labels"):
        judged(judge_probe, Itself(), Points(train, test), "points")


CENTRES = np.array(MIXTURES["eight_gaussians"]["centres"])


def test_modes_are_counted():
    near = CENTRES.repeat(10, 0) + 0.1
    assert modes(near, CENTRES, 0.2) == {"high_quality": 1, "modes_found": 8, "modes_divergence": 0}
    far = np.concatenate([CENTRES[:2].repeat(30, 0), CENTRES[2:3], np.full((39, 2), 9.0)])
    found = modes(far, CENTRES, 0.2)
    assert found["high_quality"] == 0.61
    shares = np.array([30, 30, 1]) / 61
    assert found["modes_divergence"] == pytest.approx((shares * np.log(shares * 8)).sum())
    assert found["modes_found"] == 2
    assert modes(np.zeros((50, 2)), CENTRES, 0.2) == {"high_quality": 0, "modes_found": 0}


def test_the_modes_of_the_toys_are_where_they_say():
    points, part = SHAPES["eight_gaussians"](RNG.random((20_000, 4)))
    for k, centre in enumerate(CENTRES):
        assert points[part == k].mean(0) == pytest.approx(centre, abs=0.02)
        assert points[part == k].std(0) == pytest.approx([0.2, 0.2], rel=0.05)


def test_points_are_judged_beside_real_ones_and_a_gaussian():
    draw = lambda n: torch.from_numpy(SHAPES["eight_gaussians"](RNG.random((n, 4)))[0].astype(np.float32))
    data = Points(draw(1000), draw(600), facts=MIXTURES["eight_gaussians"])
    good = judged(judge_points, Drawn(), data, "points", {"points": draw(400)})
    bad = judged(judge_points, Drawn(), data, "points", {"points": draw(400) * 0.3})
    assert good["wasserstein_num_points"] == 300
    assert good["wasserstein"] < 1.5 * good["wasserstein_real"] < bad["wasserstein"]
    assert good["sliced_wasserstein"] < good["sliced_wasserstein_gaussian"] < bad["sliced_wasserstein"]
    assert (good["modes_found"], good["modes_found_real"]) == (8, 8)
    assert good["high_quality"] > 0.99 > bad["high_quality"]


def test_points_of_the_gaussian_have_its_mean_and_covariance():
    train = RNG.normal(size=(50, 2)) @ np.array([[2.0, 1.0], [0.0, 0.5]]) + 3
    made = gaussian_points(train, 50_000)
    assert made.mean(0) == pytest.approx(train.mean(0), abs=0.05)
    assert np.cov(made.T) == pytest.approx(np.cov(train.T), rel=0.05, abs=0.05)


def test_all_orders_of_the_modes_give_one_count():
    counts = {
        modes(CENTRES, CENTRES[list(order)], 0.2)["modes_found"]
        for order in itertools.islice(itertools.permutations(range(8)), 50)
    }
    assert counts == {8}
