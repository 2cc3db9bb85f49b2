"""Energy distance between two sets of images, pixel by pixel, where no network is there in whose features to compare them.

2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖ (Székely & Rizzo, 2013), 0 for equal distributions and above 0 for all others, by its
unbiased estimate, which may lie below 0. Samples that are all alike lack their own distances, so smooth means do not win.
"""

import numpy as np

from genpipe.evaluation.features import PIXELS, compared, compared_in
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.evaluation.transport import costs

MOST_IMAGES = 256  # of each side


def judge_pixels(trial: Trial) -> dict[str, float]:
    """The distance between samples and real images beside that of others, where the trial has no yardstick."""
    try:
        compared(trial)
    except NotMeasured:
        return pixel_distances(trial)
    return {}


def pixel_distances(trial: Trial) -> dict[str, float]:
    """The same whatever the yardstick; two images are as far apart as the root mean square of their difference."""
    found = compared_in(lambda: PIXELS, trial, MOST_IMAGES)
    real = found.side.real
    metrics = {
        f"pixel_distance{suffix}": energy_distance(real, features) for suffix, features in found.sets.items()
    }
    return metrics | {"pixel_distance_num_images": float(len(real))}


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate for the distributions of rows, float [n, dim] and [m, dim], n and m at least 2."""
    return float(2 * costs(a, b).mean() - _apart(a) - _apart(b))


def _apart(a: np.ndarray) -> float:
    """The mean distance of two different rows."""
    return costs(a, a).sum() / (len(a) * (len(a) - 1))
