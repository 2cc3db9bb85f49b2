"""Fréchet distance between two sets of features (Heusel et al., 2017, arXiv:1706.08500, with features of our own).

The features are those of the classifier that the pipeline trains, so the number is not the FID of the literature and
is never called so; compare only numbers of equal sample sizes.
"""

import numpy as np
import torch
from torch import Tensor

from genpipe.capabilities import Embeds
from genpipe.data.loader import read_array
from genpipe.errors import BadState
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.nn.pixels import scaled
from genpipe.sampling.draw import in_chunks, whole


def judge_images(trial: Trial) -> dict[str, float]:
    """The distances of samples.npy from the test images, in the features of the yardstick."""
    drawn = torch.from_numpy(np.array(read_array(trial.samples / "samples.npy")))
    return judge_samples(trial.yardstick(), whole(trial.data, trial.split)["images"], drawn)


def judge_samples(yardstick: Embeds, test: Tensor, drawn: Tensor) -> dict[str, float]:
    """Distances of drawn images, of real ones and of noise from real ones, uint8 [n, channels, height, width], sizes equal.

    The rows of `test` must be in no order, as `genpipe prepare` writes them: its first half is compared with its second.
    Raises NotMeasured where there are not more images than features: their covariances would be singular.
    """
    n = min(len(drawn), len(test) // 2)
    if drawn.shape[1:] != test.shape[1:]:
        raise BadState(
            f"samples.npy has images of {tuple(drawn.shape[1:])} pixels, and the data of {tuple(test.shape[1:])}; sample again"
        )
    num_features = yardstick.embed({"images": scaled(test[:1])}).shape[1]
    if n <= num_features:
        raise NotMeasured(
            f"frechet_classifier: {num_features} features need more than {num_features} images of each kind, and sample.num "
            f"{len(drawn)} and half of {len(test)} test images give {n}; raise sample.num, or keep more images for testing"
        )
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (n, *test.shape[1:]), dtype=torch.uint8, generator=generator)
    sets = {"real": test[:n], "classifier": drawn[:n], "real_vs_real": test[n : 2 * n], "noise": noise}
    features = {key: in_chunks(yardstick.embed, {"images": scaled(x)}).numpy() for key, x in sets.items()}
    real = features.pop("real")
    distances = {f"frechet_{key}": frechet_distance(real, other) for key, other in features.items()}
    return distances | {"frechet_num_images": float(n)}


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_a Σ_b)^½) of features, float [rows, feature]."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = symmetric_root(covariance_a)
    cross = np.linalg.eigvalsh(root @ covariance_b @ root)  # same trace as (Σ_a Σ_b)^½, and no complex part
    trace = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(cross.clip(0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + trace)


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
