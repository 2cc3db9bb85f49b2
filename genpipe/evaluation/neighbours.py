"""Precision and recall (Kynkäänniemi et al., 2019, arXiv:1904.06991), density and coverage (Naeem et al., 2020, arXiv:2002.09797).

With the ball of an image: all features no farther from its own than its k-th nearest neighbour in the same set, k = 5.

- precision: the share of samples in the ball of some real image; recall: of real images in the ball of some sample;
- density: the number of real balls that a sample is in, over k, on average; it may exceed 1;
- coverage: the share of real images whose ball has some sample. For two sets of n of one distribution without ties it is
  1 − Π_{i<k} (n − 1 − i) / (2n − 1 − i) on average, near 1 − 2^−k.
"""

import numpy as np
import torch
from torch import Tensor

from genpipe.evaluation.features import compared
from genpipe.evaluation.judge import NotMeasured, Trial

NEAREST = 5
MOST = 500  # images of each side: the time grows with the square


def judge_neighbours(trial: Trial) -> dict[str, float]:
    """The four shares for the samples, and for other real images and those of a Gaussian."""
    found = compared(trial)
    real = found.side.real[:MOST]
    if len(real) <= NEAREST:
        raise NotMeasured(
            f"sample_precision: more than {NEAREST} images are needed, and there are {len(real)}"
        )
    balls = Balls(real)
    metrics: dict[str, float] = {"neighbour_num_images": float(len(real))}
    for suffix, features in found.sets.items():
        metrics |= {f"{name}{suffix}": x for name, x in balls.shares(features[:MOST]).items()}
    return metrics


class Balls:
    """The balls of real images, whose radii are computed once."""

    def __init__(self, real: np.ndarray) -> None:
        """`real` are features, float [n, feature], n > k."""
        self.real = torch.from_numpy(real)
        self.radii = radii(self.real)

    def shares(self, drawn: np.ndarray) -> dict[str, float]:
        """Precision, recall, density and coverage of samples, float [m, feature], m > k."""
        samples = torch.from_numpy(drawn)
        distances = distance(self.real, samples)
        is_in_real = distances <= self.radii.unsqueeze(1)
        is_in_drawn = distances <= radii(samples).unsqueeze(0)
        return {
            "sample_precision": share(is_in_real.any(0)),
            "sample_recall": share(is_in_drawn.any(1)),
            "sample_density": float(is_in_real.sum()) / (NEAREST * len(samples)),
            "sample_coverage": share(is_in_real.any(1)),
        }


def radii(x: Tensor) -> Tensor:
    """The distance of each row to its k-th nearest other row, [n]."""
    return distance(x, x).fill_diagonal_(torch.inf).topk(NEAREST, largest=False).values[:, -1]


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances of all pairs, [n, m]; 0 for equal rows, which a product of matrices would not give."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def share(of: Tensor) -> float:
    """The part of them that is true, in [0, 1]."""
    return float(of.double().mean())
