import math

import numpy as np
import pytest
import torch

from genpipe.evaluation import couplets
from genpipe.evaluation.frechet import frechet_distance
from genpipe.evaluation.likelihood import bits_per_dim
from genpipe.recipe import LogProb
from genpipe.sampling.latent import grid


class Constant(LogProb):
    def __init__(self, nats):
        self.nats = nats

    def log_prob(self, x):
        assert 0 <= x.min() <= x.max() < 1
        return torch.full((len(x),), self.nats)


def test_bits_per_dim_has_the_value_of_the_nice_paper():
    images = torch.randint(0, 256, (150, 28, 28), dtype=torch.uint8)
    assert bits_per_dim(Constant(1980.50), images, seed=0) == pytest.approx(4.3555, abs=1e-4)
    assert bits_per_dim(Constant(0.0), images, seed=0) == pytest.approx(8)


def test_the_frechet_distance_of_gaussians_with_diagonal_covariance():
    rng = np.random.default_rng(0)
    a = rng.normal([0, 0, 0], [1, 2, 3], (200_000, 3))
    b = rng.normal([1, 0, -1], [2, 2, 1], (200_000, 3))
    assert frechet_distance(a, b) == pytest.approx(1 + 1 + 1 + 0 + 4, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_unigram_cross_entropy_counts():
    train, test = torch.tensor([0, 0, 1]), torch.tensor([0, 1])
    assert couplets.unigram_cross_entropy(train, test, 2) == pytest.approx(
        -(math.log(3 / 5) + math.log(2 / 5)) / 2
    )


def test_couplet_forms_are_counted_by_position():
    tones = dict(zip("東西南北", "平平仄仄", strict=True))
    pairs = [("東西", "南北"), ("東東", "南西")]
    assert couplets.tone_opposition(pairs, tones) == 0.5
    assert couplets.antithesis([("一山", "二水"), ("山三", "水人")], "numeral") == 0.5
    assert couplets.shared_characters([("一山", "山水"), ("山", "水")]) == 0.5
    assert couplets.repeated_characters([("一山", "水水"), ("山", "水")]) == 0.5


def test_shuffling_keeps_the_lines():
    batch = {"upper": torch.arange(40).view(20, 2), "lower": torch.arange(40).view(20, 2)}
    (mixed,) = couplets.shuffled([batch], seed=0)
    assert torch.equal(mixed["lower"], batch["lower"])
    assert not torch.equal(mixed["upper"], batch["upper"])
    assert torch.equal(mixed["upper"].sort(0).values, batch["upper"])


def test_a_grid_puts_images_side_by_side():
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1)
    assert grid(images, columns=2, gap=1).tolist() == [
        [255] * 5,
        [255, 0, 255, 1, 255],
        [255] * 5,
        [255, 2, 255, 255, 255],
        [255] * 5,
    ]
