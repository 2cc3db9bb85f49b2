"""Losses by which texts, or anything else with a feature, learn to be near those of their group.

From Text Similarity to Margins (Su, 2018, archives/5743). Losses of classes compare a feature with a vector of each group: with the cosine
cos θ of its own group's, they put ψ(θ) ≤ cos θ in its place,

    −log exp(s ψ(θ_t)) / (exp(s ψ(θ_t)) + Σ_{i≠t} exp(s cos θ_i)).

AM-softmax (Wang et al., 2018, arXiv:1801.05599), which is CosFace (Wang et al., 2018, arXiv:1801.09414); ArcFace (Deng et al., 2018,
arXiv:1801.07698); large-margin softmax (Liu et al., 2016, arXiv:1612.02295); SphereFace (Liu et al., 2017, arXiv:1704.08063). Losses of pairs
compare the features of a slice with each other: contrastive (Hadsell, Chopra and LeCun, 2006, here of cosines and without squares), triplet
(Feng et al., 2015, arXiv:1508.01585), InfoNCE (van den Oord et al., 2018, arXiv:1807.03748).

No angle is computed: what an inverse cosine would give follows from the cosine alone.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# below this sin²θ, the slope of sin θ as a function of cos θ is taken for 0: it would be infinite at θ = 0
LEAST_SQUARE = 1e-7
# a logit of what is left out: finite, so that a text without any other has a loss and a gradient of 0
LEFT_OUT = -1e4


def cosines(features: Tensor, vectors: Tensor) -> Tensor:
    """cos θ of each feature, [n, dim], and each vector, [m, dim]: [n, m]."""
    return F.normalize(features) @ F.normalize(vectors).T


def am_psi(cosine: Tensor, margin: float) -> Tensor:
    """cos θ − m."""
    return cosine - margin


def arc_psi(cosine: Tensor, margin: float) -> Tensor:
    """cos(θ + m), m in radians; beyond θ = π − m, where that would rise again, cos θ − m sin m."""
    sine = (1 - cosine.square()).clamp_min(LEAST_SQUARE).sqrt()
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine > -math.cos(margin), moved, cosine - margin * math.sin(margin))


def multiple_psi(cosine: Tensor, multiple: int) -> Tensor:
    """(−1)^k cos(mθ) − 2k for θ in [kπ/m, (k + 1)π/m]: it falls from 1 to 1 − 2m."""
    before, chebyshev = torch.ones_like(cosine), cosine
    for _ in range(multiple - 1):
        before, chebyshev = chebyshev, 2 * cosine * chebyshev - before
    k = torch.zeros_like(cosine)
    for j in range(1, multiple):
        k = k + (cosine < math.cos(j * math.pi / multiple)).to(cosine.dtype)
    sign = 1 - 2 * torch.remainder(k, 2)
    return sign * chebyshev - 2 * k


def simpler_psi(cosine: Tensor) -> Tensor:
    """min(cos 4θ, cos θ). It rises from θ = π/4 to 2π/5 and from 3π/4 to 4π/5, where a gradient pushes a text away from its class."""
    square = cosine.square()
    return torch.minimum(8 * square.square() - 8 * square + 1, cosine)


def with_own(logits: Tensor, labels: Tensor, psi: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits, [n, classes], with `psi` of that of each row's own class, labels int64 [n], in its place."""
    places = labels.unsqueeze(1)
    return logits.scatter(1, places, psi(logits.gather(1, places)))


def margin_nats(
    cosine: Tensor, labels: Tensor, psi: Callable[[Tensor], Tensor], scale: float | Tensor
) -> Tensor:
    """The loss of each row, [n], of cosines, [n, classes]; the scale is a number, or one a row, [n, 1]."""
    return F.cross_entropy(scale * with_own(cosine, labels, psi), labels, reduction="none")


def large_margin_nats(
    features: Tensor, vectors: Tensor, labels: Tensor, psi: Callable[[Tensor], Tensor]
) -> Tensor:
    """The same, [n], where each cosine is multiplied by the lengths of its feature and of its class's vector."""
    lengths = features.norm(dim=1, keepdim=True) * vectors.norm(dim=1)
    logits = lengths * with_own(cosines(features, vectors), labels, psi)
    return F.cross_entropy(logits, labels, reduction="none")


def to_centres(features: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """‖f − c‖² of each feature and the centre of its class, [n]: the centre loss, without its factor."""
    return (features - centres[labels]).square().sum(1)


class Compared(NamedTuple):
    """The features of a slice with each other: cosines, and which pairs are of one group or of two, bool, all [n, n]."""

    cosine: Tensor
    positive: Tensor  # of one group, and not the same row
    negative: Tensor


def compared(features: Tensor, groups: Tensor, hardest: int | None = None) -> Compared:
    """`hardest` leaves of each row that many negatives, those of the largest cosine."""
    cosine = cosines(features, features)
    same = groups.unsqueeze(0) == groups.unsqueeze(1)
    negative = ~same
    if hardest is not None:
        number = min(hardest, len(groups))
        least = cosine.detach().masked_fill(same, -torch.inf).topk(number).values[:, -1:]
        negative = negative & (cosine.detach() >= least)
    return Compared(cosine, same & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device), negative)


def has_both(pairs: Compared) -> Tensor:
    """Which rows have another row of their group and one of another group, bool [n]: those whose loss counts."""
    return pairs.positive.any(1) & pairs.negative.any(1)


def is_nearest_right(pairs: Compared) -> Tensor:
    """Whether the nearest other row is of the same group, bool [n]."""
    own = torch.eye(len(pairs.cosine), dtype=torch.bool, device=pairs.cosine.device)
    nearest = pairs.cosine.detach().masked_fill(own, -torch.inf).argmax(1, keepdim=True)
    return pairs.positive.gather(1, nearest).squeeze(1)


def siamese(pairs: Compared, margin: float) -> Tensor:
    """1 − cos θ of rows of one group, and max(0, cos θ − m) of others: the means of both, added, [n]."""
    near = mean_where(1 - pairs.cosine, pairs.positive)
    return near + mean_where((pairs.cosine - margin).clamp_min(0), pairs.negative)


def triplet(pairs: Compared, margin: float) -> Tensor:
    """max(0, m − cos θ_p + cos θ_n), the mean over the triplets of each row, [n]."""
    hinge = (margin - pairs.cosine.unsqueeze(2) + pairs.cosine.unsqueeze(1)).clamp_min(0)
    is_triplet = pairs.positive.unsqueeze(2) & pairs.negative.unsqueeze(1)
    return mean_where(hinge.flatten(1), is_triplet.flatten(1))


def info_nce(pairs: Compared, scale: float) -> Tensor:
    """−log exp(s cos θ_p) / (exp(s cos θ_p) + Σ_n exp(s cos θ_n)), the mean over the positives of each row, [n]."""
    logits = scale * pairs.cosine
    others = torch.where(pairs.negative, logits, LEFT_OUT).logsumexp(1, keepdim=True)
    return mean_where(F.softplus(others - logits), pairs.positive)


def mean_where(values: Tensor, keep: Tensor) -> Tensor:
    """The mean of each row of `values` where `keep` is true, both [n, m]: [n]; 0 for a row without any."""
    keep = keep.to(values.dtype)
    return (values * keep).sum(1) / keep.sum(1).clamp_min(1)
