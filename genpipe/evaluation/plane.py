"""Samples of points: distances from test points, and the modes of a mixture where the data says where they are."""

import math

import numpy as np
import torch

from genpipe.data.loader import read_array
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.evaluation.transport import sliced_wasserstein_1, wasserstein_1
from genpipe.sampling.draw import whole

MOST = 500  # points of each side of an exact distance: the time of it grows with the third power
NEAR = 4.0  # standard deviations
SMALLEST_SHARE = 0.02  # of the samples, for a mode to be found


def judge_points(trial: Trial) -> dict[str, float]:
    """Wasserstein-1 distances, exact and sliced, of samples, of other real points and of a Gaussian; and the modes."""
    made = trial.made["points"].numpy() if trial.made else np.array(read_array(trial.samples / "points.npy"))
    test = whole(trial.data, trial.split)["points"].numpy()
    n = min(len(made), len(test) // 2)
    if n < 2:
        raise NotMeasured(
            f"wasserstein: points are compared two by two, and sample.num and half of the test points give {n}"
        )
    real = test[:n]
    gaussian = gaussian_points(whole(trial.data, "train")["points"].numpy(), n)
    metrics = {"wasserstein_num_points": float(min(n, MOST)), "sliced_wasserstein_num_points": float(n)}
    for suffix, points in (("", made[:n]), ("_real", test[n : 2 * n]), ("_gaussian", gaussian)):
        metrics[f"wasserstein{suffix}"] = wasserstein_1(real[:MOST], points[:MOST])
        metrics[f"sliced_wasserstein{suffix}"] = sliced_wasserstein_1(real, points)
    if "centres" not in trial.data.facts:
        return metrics
    centres, deviation = np.array(trial.data.facts["centres"]), float(trial.data.facts["deviation"])
    others = modes(test, centres, deviation)
    return metrics | modes(made, centres, deviation) | {f"{key}_real": value for key, value in others.items()}


def modes(points: np.ndarray, centres: np.ndarray, deviation: float) -> dict[str, float]:
    """Share of points, [n, dim], near one of the centres, [k, dim]; centres found; divergence of their shares from 1/k.

    A point belongs to its nearest centre, and is near it within four deviations of a coordinate. A centre is found that
    has at least 2 % of all points near it, or half of 1/k where that is less. Where no point is near, there is no divergence.
    """
    distance = np.linalg.norm(points[:, None].astype(np.float64) - centres[None], axis=2)
    nearest, is_near = distance.argmin(1), distance.min(1) <= NEAR * deviation
    k = len(centres)
    near = np.bincount(nearest[is_near], minlength=k)
    shares = near[near > 0] / max(near.sum(), 1)
    divergence = {"modes_divergence": float((shares * np.log(shares * k)).sum())} if len(shares) else {}
    return {
        "high_quality": float(is_near.mean()),
        "modes_found": float((near >= min(SMALLEST_SHARE, 0.5 / k) * len(points)).sum()),
        **divergence,
    }


def gaussian_points(train: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """`n` points from the Gaussian with the mean and covariance of others, float [rows, dim], as features.gaussian_images."""
    mean = train.mean(0)
    normal = torch.randn(n, len(train), generator=torch.Generator().manual_seed(seed)).numpy()
    return mean + normal @ (train - mean) / math.sqrt(max(len(train) - 1, 1))
