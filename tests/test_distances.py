"""Each measure of samples against an independent value: a closed form, brute force, or SciPy."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from genpipe.capabilities import Classifies, Embeds, Samples
from genpipe.errors import BadState
from genpipe.evaluation.features import RealSide, compared, gaussian_images, real_side
from genpipe.evaluation.found_classes import coverage, entropy, judge_found_classes
from genpipe.evaluation.frechet import distances, frechet_distance, judge_images
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.evaluation.judges import JUDGES
from genpipe.evaluation.kernel import kernel_distance, squared_discrepancy
from genpipe.evaluation.neighbours import Balls, judge_neighbours
from genpipe.evaluation.transport import costs, sliced_wasserstein_1, transport_cost, wasserstein_1
from genpipe.metrics import find

RNG = np.random.default_rng(0)
SHAPE = (1, 4, 4)


class Quadrants(Embeds, Classifies):
    """Mean brightness of the four quarters of an image; the brightest is the class."""

    def embed(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x["images"], 2).flatten(1)

    def classify(self, x):
        return self.embed(x)


class Nothing(Samples):
    def sample(self, n, given):
        raise AssertionError("samples are in files")


class Conditional(Nothing):
    given = ("labels",)


class Pictures:
    """Images of one brighter quarter, which is the class."""

    def __init__(self, test=400, train=100):
        self.facts = {"image_shape": SHAPE}
        rng = np.random.default_rng(0)
        self.parts = {}
        for split, n in (("test", test), ("train", train)):
            labels = torch.from_numpy(rng.integers(0, 4, n))
            images = rng.integers(0, 100, (n, *SHAPE), dtype=np.uint8)
            for image, label in zip(images, labels.tolist(), strict=True):
                image[0, label // 2 * 2 : label // 2 * 2 + 2, label % 2 * 2 : label % 2 * 2 + 2] += 120
            self.parts[split] = {"images": torch.from_numpy(images), "labels": labels}

    def split(self, name):
        return iter([self.parts[name]])


def trial_of(images, data, model=None, yardstick=None):
    yardstick = yardstick or Quadrants()
    made = {"images": images}
    return Trial(model or Nothing(), data, "images", "test", Path(), lambda: yardstick, None, 0, made)


def test_the_distance_of_real_from_real_images_falls_with_their_number():
    """The bias that makes only numbers of equal sample sizes comparable: 64 features as those of the classifier."""
    found = []
    for n in (200, 800):
        x, y = (np.maximum(RNG.normal(size=(n, 64)), 0) for _ in range(2))
        found.append(frechet_distance(x, y))
    assert found[0] > 3 * found[1] > 0


def test_a_kernel_distance_is_that_of_all_pairs():
    a, b = RNG.normal(size=(7, 3)), RNG.normal(1, 2, size=(5, 3))
    k = lambda x, y: (x @ y / 3 + 1) ** 3
    of_a = np.mean([k(x, y) for x, y in itertools.permutations(a, 2)])
    of_b = np.mean([k(x, y) for x, y in itertools.permutations(b, 2)])
    across = np.mean([k(x, y) for x in a for y in b])
    assert squared_discrepancy(a, b) == pytest.approx(of_a + of_b - 2 * across, rel=1e-12)


def test_a_kernel_distance_of_equal_distributions_is_zero_on_average():
    mean, spread = kernel_distance(RNG.normal(size=(2000, 8)), RNG.normal(size=(2000, 8)))
    assert abs(mean) < 3 * spread / math.sqrt(10)
    assert kernel_distance(RNG.normal(size=(2000, 8)), RNG.normal(0.5, 1, size=(2000, 8)))[0] > 5 * spread


def test_few_rows_are_one_block_without_a_spread():
    a, b = RNG.normal(size=(30, 2)), RNG.normal(size=(30, 2))
    assert kernel_distance(a, b) == (pytest.approx(squared_discrepancy(a, b)), 0.0)


def brute_shares(real, drawn, k=5):
    def radius(points, i):
        return sorted(math.dist(points[i], y) for j, y in enumerate(points) if j != i)[k - 1]

    of_real = [radius(real, i) for i in range(len(real))]
    of_drawn = [radius(drawn, j) for j in range(len(drawn))]
    inside = [[math.dist(x, y) <= r for y in drawn] for x, r in zip(real, of_real, strict=True)]
    return {
        "sample_precision": np.mean([any(row[j] for row in inside) for j in range(len(drawn))]),
        "sample_recall": np.mean(
            [any(math.dist(x, y) <= r for y, r in zip(drawn, of_drawn, strict=True)) for x in real]
        ),
        "sample_density": sum(map(sum, inside)) / (k * len(drawn)),
        "sample_coverage": np.mean([any(row) for row in inside]),
    }


def test_precision_recall_density_and_coverage_are_those_of_the_definitions():
    real, drawn = RNG.normal(size=(40, 3)), RNG.normal(0.7, 0.8, size=(30, 3))
    found = Balls(real).shares(drawn)
    assert found == pytest.approx(brute_shares(real, drawn), rel=1e-12)
    assert len(set(found.values())) == 4


def test_copies_of_real_images_are_precise_and_far_ones_are_not():
    real = RNG.normal(size=(50, 3))
    assert Balls(real).shares(real) == {
        "sample_precision": 1,
        "sample_recall": 1,
        "sample_density": 6 / 5,  # each ball holds its own centre and five neighbours
        "sample_coverage": 1,
    }
    assert set(Balls(real).shares(real + 100).values()) == {0}


def test_the_coverage_of_real_images_has_its_expectation():
    """1 − Π_{i<k} (n − 1 − i) / (2n − 1 − i) (Naeem et al., 2020, lemma 2)."""
    n, found = 60, []
    for _ in range(60):
        x = RNG.normal(size=(2 * n, 2))
        found.append(Balls(x[:n]).shares(x[n:])["sample_coverage"])
    expected = 1 - math.prod((n - 1 - i) / (2 * n - 1 - i) for i in range(5))
    assert np.mean(found) == pytest.approx(expected, abs=3 * np.std(found) / math.sqrt(60))


def test_classes_are_counted():
    real = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    assert coverage(torch.tensor([0] * 9 + [1]), real) == 2 / 3  # class 1: 0.1 ≥ 0.2 · 0.4
    assert coverage(torch.tensor([0] * 20 + [1]), real) == 1 / 3
    assert entropy(torch.tensor([0, 1, 2, 3])) == pytest.approx(math.log(4))
    assert entropy(torch.tensor([3, 3])) == 0


def test_samples_of_half_of_the_classes_are_found_out():
    data = Pictures()
    test = data.parts["train"]
    few = test["images"][test["labels"] < 2]
    found = judge_found_classes(trial_of(few, data))
    assert found["class_coverage"] == 0.5
    assert found["class_coverage_real"] == 1
    assert found["class_entropy"] == pytest.approx(math.log(2), abs=0.05)
    assert found["class_entropy_real"] == pytest.approx(math.log(4), abs=0.05)
    assert "class_agreement" not in found


def test_conditional_samples_agree_with_the_classes_asked_for():
    data = Pictures()
    right = data.parts["test"]["images"][:200]
    assert judge_found_classes(trial_of(right, data, Conditional()))["class_agreement"] == 1
    other = judge_found_classes(trial_of(right.roll(1, 0), data, Conditional()))
    labels = data.parts["test"]["labels"][:200]
    assert other["class_agreement"] == float((labels == labels.roll(1)).double().mean())


@pytest.mark.parametrize("sizes", [(30, 30), (20, 30)])
def test_a_wasserstein_distance_on_a_line_is_that_of_scipy(sizes):
    a, b = RNG.normal(size=(sizes[0], 1)), RNG.exponential(size=(sizes[1], 1))
    assert wasserstein_1(a, b) == pytest.approx(wasserstein_distance(a[:, 0], b[:, 0]), rel=1e-9)


def test_the_assignment_and_the_linear_program_agree():
    a, b = RNG.normal(size=(25, 5)), RNG.normal(1, 1, size=(25, 5))
    cost = np.linalg.norm(a[:, None] - b[None], axis=2)
    assert transport_cost(cost) == pytest.approx(wasserstein_1(a, b), rel=1e-9)


def largest(gain, pairs, bounds):
    """max gain · x over all x with x_p + sign x_q ≤ bound for each pair (p, q, sign)."""
    rows = np.zeros((len(pairs), len(gain)))
    for row, (p, q, sign) in zip(rows, pairs, strict=True):
        row[p], row[q] = 1, sign
    return -linprog(-gain, A_ub=rows, b_ub=bounds, bounds=(None, None)).fun


@pytest.mark.parametrize("power", [1, 2])
def test_the_dual_program_has_the_value_of_the_primal(power):
    """max mean f + mean g with f(x) + g(y) ≤ c(x, y). With g = −f, one function whose slope is 1 at most, only for a metric."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 2)), rng.normal(1, 1, size=(7, 2))
    cost, gain = costs(a, b) ** power, np.repeat([1 / 6, 1 / 7], [6, 7])
    both = [(i, 6 + j, 1) for i in range(6) for j in range(7)]
    assert largest(gain, both, cost.ravel()) == pytest.approx(transport_cost(cost), abs=1e-8)
    points = np.concatenate([a, b])
    steep = [(i, j, -1) for i, j in itertools.permutations(range(13), 2)]
    bounds = [math.dist(points[i], points[j]) ** power for i, j, _ in steep]
    of_one = largest(gain * np.repeat([1, -1], [6, 7]), steep, bounds)
    if power == 1:
        assert of_one == pytest.approx(wasserstein_1(a, b), abs=1e-8)
    else:
        assert of_one < 0.9 * transport_cost(cost)


def test_real_batches_are_farther_from_one_another_than_from_centres_of_clusters():
    """Stanczuk et al., 2021: so the distance of batches does not say which of two sets of samples is more real.

    On digits, 64 of each, pixels in [0, 1]: 7.5 from others, 6.1 from centres, 7.2 from copies of the mean image. Here x ~ N(0, I).
    """
    rng = np.random.default_rng(0)
    real, others, more = np.split(rng.normal(size=(1128, 100)), [64, 128])
    centres, _ = kmeans2(more, 64, iter=10, minit="points", rng=rng)
    assert len(centres) == 64
    to_others, to_centres, to_mean = (wasserstein_1(real, x) for x in (others, centres, np.zeros((64, 100))))
    assert to_mean == pytest.approx(np.linalg.norm(real, axis=1).mean(), rel=1e-12)
    assert to_centres < to_others
    assert to_mean < to_others


def test_the_best_assignment_is_that_of_all_orders():
    a, b = RNG.normal(size=(6, 2)), RNG.normal(size=(6, 2))
    best = min(
        np.mean([math.dist(x, b[j]) for x, j in zip(a, order, strict=True)])
        for order in itertools.permutations(range(6))
    )
    assert wasserstein_1(a, b) == pytest.approx(best, rel=1e-12)


def test_a_translation_in_the_plane_has_its_sliced_distance():
    a, shift = RNG.normal(size=(50, 2)), np.array([3.0, 4.0])
    assert sliced_wasserstein_1(a, a + shift) == pytest.approx(5 * 2 / math.pi, rel=0.06)
    assert wasserstein_1(a, a + shift) == pytest.approx(5, rel=1e-9)
    a, b = RNG.normal(size=(40, 1)), RNG.normal(2, 1, size=(40, 1))
    assert sliced_wasserstein_1(a, b) == pytest.approx(wasserstein_distance(a[:, 0], b[:, 0]), rel=1e-9)


def test_images_of_the_gaussian_have_its_mean_and_covariance():
    # far from 0 and 255, where pixels are cut off
    images = 128 + 10 * torch.from_numpy(RNG.normal(size=(60, 3)) @ RNG.uniform(-1, 1, (3, 4)))
    images = images.round().to(torch.uint8).view(60, 1, 2, 2)
    made = gaussian_images(images, 40_000)
    assert made.shape == (40_000, 1, 2, 2)
    real, drawn = (x.flatten(1).double() for x in (images, made))
    assert torch.allclose(drawn.mean(0), real.mean(0), atol=0.5)
    assert torch.allclose(drawn.T.cov(), real.T.cov(), rtol=0.05, atol=5)


def test_judges_share_the_features_of_one_trial():
    class Counting(Quadrants):
        seen = 0

        def embed(self, x):
            Counting.seen += len(x["images"])
            return super().embed(x)

    data = Pictures()
    yardstick = Counting()
    trial = trial_of(data.parts["train"]["images"], data, yardstick=yardstick)
    for judge in (judge_images, judge_neighbours):
        judge(trial)
    assert Counting.seen == 5 * 100
    compared(trial_of(data.parts["train"]["images"].flip(0), data, yardstick=yardstick))
    assert Counting.seen == 6 * 100  # the real side is that of before


def test_every_distance_has_real_images_beside_it():
    data = Pictures()
    trial = trial_of(data.parts["train"]["images"], data)
    metrics = {}
    for judge in JUDGES:
        if judge.fits(trial):
            metrics |= judge.judge(trial)
    assert {name for name in metrics if find(name) is None} == set()
    real = {"frechet_real_vs_real", "kernel_distance_real", "feature_wasserstein_real", "sample_recall_real"}
    gaussian = {"frechet_gaussian", "kernel_distance_gaussian", "feature_wasserstein_gaussian"}
    assert real | gaussian <= metrics.keys()
    assert metrics["frechet_num_images"] == metrics["neighbour_num_images"] == 100


def test_images_of_another_size_are_named():
    with pytest.raises(
        BadState, match=r"samples.npy has images of \(1, 5, 5\) pixels, and the data of \(1, 4, 4\)"
    ):
        judge_images(trial_of(torch.zeros(10, 1, 5, 5, dtype=torch.uint8), Pictures()))


def test_few_images_leave_out_only_what_needs_more():
    side = RealSide(Quadrants(), *(RNG.normal(size=(4, 4)) for _ in range(4)))
    data = Pictures()
    trial = trial_of(data.parts["train"]["images"][:4], data)
    with pytest.raises(NotMeasured, match="4 features need more than 4 images of each kind"):
        judge_images(trial)
    with pytest.raises(NotMeasured, match="more than 5 images are needed, and there are 4"):
        judge_neighbours(trial)
    assert side.real.shape == real_side(Quadrants(), data, "test", 4).real.shape
    assert judge_found_classes(trial)["class_coverage_real"] > 0
    assert distances(compared(trial_of(data.parts["train"]["images"][:9], data)))["frechet_num_images"] == 9
