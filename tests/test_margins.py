"""Losses with margins, beside NumPy and beside the values of pytorch-metric-learning."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genpipe.nn import margins

SCALE = 30.0
CLASSES = torch.tensor([0, 0, 1, 1, 2, 2, 5, 6])
GROUPS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
PSI = {
    "softmax": lambda c: c,
    "am": lambda c: margins.am_psi(c, 0.35),
    "arc": lambda c: margins.arc_psi(c, 0.5),
    "sphere 2": lambda c: margins.multiple_psi(c, 2),
    "sphere 3": lambda c: margins.multiple_psi(c, 3),
    "sphere 4": lambda c: margins.multiple_psi(c, 4),
    "simpler": margins.simpler_psi,
}
ANGLES = {  # the same as functions of an angle in radians, by NumPy
    "softmax": np.cos,
    "am": lambda t: np.cos(t) - 0.35,
    "arc": lambda t: np.where(t < np.pi - 0.5, np.cos(t + 0.5), np.cos(t) - 0.5 * np.sin(0.5)),
    "sphere 2": lambda t: multiple(t, 2),
    "sphere 3": lambda t: multiple(t, 3),
    "sphere 4": lambda t: multiple(t, 4),
    "simpler": lambda t: np.minimum(np.cos(4 * t), np.cos(t)),
}
# pytorch-metric-learning 2.9.0 in float64 on the same features and vectors: CosFaceLoss, ArcFaceLoss with a margin of 28.6…, in degrees,
# NormalizedSoftmaxLoss, SphereFaceLoss and LargeMarginSoftmaxLoss of scale 1
PUBLISHED = {
    "softmax": 13.755027972138143,
    "am": 22.99143269504449,
    "arc": 25.184603207198435,
    "sphere 2": 4.793764360612153,
    "sphere 3": 6.849240913583273,
    "sphere 4": 9.711744143364493,
    "large 2": 6.897385817834,
    "large 3": 10.232487596769843,
    "large 4": 14.70807212407468,
}
# of pairs, with CosineSimilarity and MeanReducer: NTXentLoss of temperature 1/20, TripletMarginLoss of margin 0.2, and ContrastiveLoss with the
# margins 1 and 0.1
PUBLISHED_PAIRS = {"info_nce": 21.834523941904965, "triplet": 0.6095255398629027, "siamese": 1.52054856985876}


def multiple(angle: np.ndarray, m: int) -> np.ndarray:
    k = np.minimum(np.floor(angle * m / np.pi), m - 1)
    return (-1.0) ** k * np.cos(m * angle) - 2 * k


def features() -> torch.Tensor:
    """Eight features of length 2 or so, one near the vector of its class and one opposite to it."""
    made = torch.from_numpy(np.sin(1 + np.arange(40) * 1.7).reshape(8, 5) * 2)
    made[0], made[3] = vectors()[0] * 1.5 + 0.1, -vectors()[1]
    return made


def vectors() -> torch.Tensor:
    return torch.from_numpy(np.cos(2 + np.arange(35) * 0.9).reshape(7, 5))


def loss_of(name: str) -> torch.Tensor:
    kind, _, multiple = name.partition(" ")
    if kind == "large":
        return margins.large_margin_nats(
            features(), vectors(), CLASSES, lambda c: margins.multiple_psi(c, int(multiple))
        )
    scale = features().norm(dim=1, keepdim=True) if kind == "sphere" else SCALE
    return margins.margin_nats(margins.cosines(features(), vectors()), CLASSES, PSI[name], scale)


@pytest.mark.parametrize("name", PSI)
def test_psi_is_that_of_the_angle(name):
    angle = np.linspace(0, np.pi, 100_001)
    found = PSI[name](torch.from_numpy(np.cos(angle))).numpy()
    assert np.abs(found - ANGLES[name](angle)).max() < 4e-4  # at 0 and π, where the sine is held above √1e-7
    inner = (angle > 1e-3) & (angle < np.pi - 1e-3)
    assert np.abs(found - ANGLES[name](angle))[inner].max() < 1e-7


@pytest.mark.parametrize("name", PSI)
def test_psi_is_at_most_the_cosine_and_falls_with_the_angle_but_for_the_simpler_one(name):
    angle = np.linspace(0, np.pi, 100_001)
    found = PSI[name](torch.from_numpy(np.cos(angle))).numpy()
    assert (found <= np.cos(angle) + 1e-12).all()
    rises = np.diff(found).max() > 1e-9
    assert rises == (name == "simpler")
    if name == "simpler":
        climbing = angle[1:][np.diff(found) > 1e-9] / np.pi
        first, second = climbing[climbing < 0.5], climbing[climbing > 0.5]
        assert [first[0], first[-1], second[0], second[-1]] == pytest.approx(
            [1 / 4, 2 / 5, 3 / 4, 4 / 5], abs=1e-4
        )


def test_am_softmax_is_a_cross_entropy_of_moved_cosines():
    cosine = margins.cosines(features(), vectors())
    moved = SCALE * (cosine - 0.35 * F.one_hot(CLASSES, 7))
    assert torch.allclose(loss_of("am"), F.cross_entropy(moved, CLASSES, reduction="none"), atol=1e-12)
    plain = margins.margin_nats(cosine, CLASSES, lambda c: margins.am_psi(c, 0.0), 1.0)
    assert torch.allclose(plain, F.cross_entropy(cosine, CLASSES, reduction="none"), atol=1e-12)


def test_a_loss_of_a_right_text_is_not_below_zero_in_single_precision():
    """What log Z + log(1 − exp(s cos θ − log Z)) gives there is off by hundredths, and negative."""
    for own in (1.0, 1 - 1e-7, 0.999, 0.99):
        cosine = torch.zeros(1, 90_000, dtype=torch.float32)
        cosine[0, 7] = own
        found = margins.margin_nats(cosine, torch.tensor([7]), lambda c: margins.am_psi(c, 0.35), SCALE)
        exact = math.log1p(89_999 * math.exp(-SCALE * (own - 0.35)))
        assert 0 <= float(found) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(("scale", "expected"), [(30.0, 3.06e-4), (10.0, 4.909)])
def test_the_scale_must_grow_with_the_number_of_classes(scale, expected):
    """The least loss that is possible, with 90,000 classes and every cosine as it should be."""
    cosine = torch.zeros(1, 90_000, dtype=torch.float64)
    cosine[0, 0] = 1
    found = margins.margin_nats(cosine, torch.tensor([0]), lambda c: margins.am_psi(c, 0.35), scale)
    assert float(found) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED)
def test_losses_of_classes_are_those_of_pytorch_metric_learning(name):
    assert float(loss_of(name).mean()) == pytest.approx(PUBLISHED[name], rel=1e-12)


def of_pairs(name: str, pairs: margins.Compared) -> torch.Tensor:
    return {
        "info_nce": lambda: margins.info_nce(pairs, 20.0),
        "triplet": lambda: margins.triplet(pairs, 0.2),
        "siamese": lambda: margins.siamese(pairs, 0.1),
    }[name]()


@pytest.mark.parametrize("name", PUBLISHED_PAIRS)
def test_losses_of_pairs_are_those_of_pytorch_metric_learning(name):
    found = of_pairs(name, margins.compared(features(), GROUPS)).mean()
    assert float(found) == pytest.approx(PUBLISHED_PAIRS[name], rel=1e-9)


def slowly(name: str, features: np.ndarray, groups: list[int], hardest: int | None) -> list[float]:
    """The loss of each row, pair by pair."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    rows = []
    for a, group in enumerate(groups):
        near = [float(unit[a] @ unit[i]) for i, g in enumerate(groups) if g == group and i != a]
        far = sorted((float(unit[a] @ unit[i]) for i, g in enumerate(groups) if g != group), reverse=True)
        far = far[:hardest]
        if name == "siamese":
            rows.append(np.mean([1 - c for c in near]) + np.mean([max(0, c - 0.1) for c in far]))
        elif name == "triplet":
            rows.append(np.mean([max(0, 0.2 - p + n) for p in near for n in far]))
        else:
            total = sum(math.exp(20 * n) for n in far)
            rows.append(np.mean([-math.log(math.exp(20 * p) / (math.exp(20 * p) + total)) for p in near]))
    return rows


@pytest.mark.parametrize("hardest", [None, 1, 3])
@pytest.mark.parametrize("name", PUBLISHED_PAIRS)
def test_losses_of_pairs_count_the_hardest_negatives_of_groups_of_any_size(name, hardest):
    groups = [0, 0, 0, 1, 1, 2, 2, 2]
    pairs = margins.compared(features(), torch.tensor(groups), hardest)
    expected = slowly(name, features().numpy(), groups, hardest)
    assert of_pairs(name, pairs).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", PUBLISHED_PAIRS)
def test_a_row_without_a_positive_or_a_negative_does_not_count_and_gives_no_gradient(name):
    for groups in ([0, 1, 2, 3, 4, 5, 6, 7], [0] * 8):
        x = features().requires_grad_()
        pairs = margins.compared(x, torch.tensor(groups), 2)
        assert not margins.has_both(pairs).any()
        found = torch.where(margins.has_both(pairs), of_pairs(name, pairs), 0.0).sum()
        (gradient,) = torch.autograd.grad(found, x)
        assert float(found.detach()) == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("name", [*PSI, "large 4"])
def test_gradients_are_finite_where_a_text_is_exactly_at_its_class(name):
    x = vectors()[CLASSES].clone().requires_grad_()
    kind, _, m = name.partition(" ")
    if kind == "large":
        found = margins.large_margin_nats(x, vectors(), CLASSES, lambda c: margins.multiple_psi(c, int(m)))
    else:
        found = margins.margin_nats(margins.cosines(x, vectors()), CLASSES, PSI[name], SCALE)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient.isfinite().all()


def test_the_centre_loss_is_the_square_of_the_distance_without_a_half():
    found = margins.to_centres(features(), vectors(), CLASSES)
    expected = ((features().numpy() - vectors().numpy()[CLASSES.numpy()]) ** 2).sum(1)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-12)
