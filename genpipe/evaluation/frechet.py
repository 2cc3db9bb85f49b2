"""Fréchet distance between two sets of features (Heusel et al., 2017, arXiv:1706.08500, with features of our own).

The features are those of the classifier that the pipeline trains, so the number is not the FID of the literature and
is never called so. The distance is biased: between two finite sets of one distribution it is above 0, and falls like
1/n. So compare only numbers of equal sample sizes; real images against real ones show the bias at that size.
"""

import numpy as np

from genpipe.evaluation.features import HOW_MANY, Compared, compared
from genpipe.evaluation.given import GivenNetwork
from genpipe.evaluation.judge import NotMeasured, Trial


def judge_images(trial: Trial) -> dict[str, float]:
    """The distances of the samples, of other real images, of a Gaussian and of noise from the first half of the split."""
    return distances(compared(trial))


def distances(found: Compared) -> dict[str, float]:
    """Fréchet distances from real images, by metric.

    Raises NotMeasured where there are not more images than features: their covariances would be singular.
    """
    side = found.side
    n, num_features = side.real.shape
    name = "frechet_network" if isinstance(side.yardstick, GivenNetwork) else "frechet_classifier"
    if n <= num_features:
        raise NotMeasured(
            f"{name}: {num_features} features need more than {num_features} images of each kind, and {HOW_MANY} "
            f"give {n}; raise it, or keep more images"
        )
    from_real = FrechetFrom(side.real)
    return {
        name: from_real(found.drawn),
        "frechet_real_vs_real": from_real(side.other),
        "frechet_gaussian": from_real(side.gaussian),
        "frechet_noise": from_real(side.noise),
        "frechet_num_images": float(n),
    }


class FrechetFrom:
    """The distance from one set of features, float [rows, feature], whose covariance and its root are computed once."""

    def __init__(self, features: np.ndarray) -> None:
        self.mean, self.covariance = moments(features)
        self.root = symmetric_root(self.covariance)

    def __call__(self, features: np.ndarray) -> float:
        """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_a Σ_b)^½)."""
        mean, covariance = moments(features)
        # same trace as (Σ_a Σ_b)^½, and no complex part
        cross = np.linalg.eigvalsh(self.root @ covariance @ self.root)
        trace = np.trace(self.covariance) + np.trace(covariance) - 2 * np.sqrt(cross.clip(0)).sum()
        return float(np.square(self.mean - mean).sum() + trace)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The distance between two sets of features, float [rows, feature]."""
    return FrechetFrom(a)(b)


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, [feature], and unbiased covariance, [feature, feature], in double precision."""
    x = features.astype(np.float64)
    return x.mean(0), np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
