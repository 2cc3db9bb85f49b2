"""Kernel distance between two sets of features (Bińkowski et al., 2018, arXiv:1801.01401, with features of our own).

The squared maximum mean discrepancy of the kernel (xᵀy / d + 1)³ over d features, by its unbiased estimate. Its mean is
0 for two sets of one distribution whatever their sizes, so an estimate may lie below 0.
"""

import numpy as np

from genpipe.evaluation.features import compared
from genpipe.evaluation.judge import Trial

NUM_BLOCKS = 10
SMALLEST = 20  # images of a block


def judge_kernel(trial: Trial) -> dict[str, float]:
    """The mean over blocks of the samples' distance and its standard deviation, and the means of what it is compared with."""
    found = compared(trial)
    side = found.side
    mean, spread = kernel_distance(side.real, found.drawn)
    others = {"_real": side.other, "_gaussian": side.gaussian, "_noise": side.noise}
    return {
        "kernel_distance": mean,
        "kernel_distance_spread": spread,
        **{f"kernel_distance{key}": kernel_distance(side.real, x)[0] for key, x in others.items()},
    }


def kernel_distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over blocks of rows, float [n, feature] each, which no two blocks share.

    Ten blocks, fewer where they would have fewer than 20 rows; the deviation of one block is 0.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    number = max(1, min(NUM_BLOCKS, min(len(a), len(b)) // SMALLEST))
    blocks = zip(np.array_split(a, number), np.array_split(b, number), strict=True)
    values = [squared_discrepancy(x, y) for x, y in blocks]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if number > 1 else 0.0


def squared_discrepancy(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate of the squared discrepancy of two sets, float [n, feature] and [m, feature], n, m ≥ 2."""
    n, m = len(a), len(b)
    within_a, within_b, across = kernel(a, a), kernel(b, b), kernel(a, b)
    of_a = (within_a.sum() - np.trace(within_a)) / (n * (n - 1))
    of_b = (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
    return float(of_a + of_b - 2 * across.mean())


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(xᵀy / d + 1)³ of all pairs, [n, m]."""
    x = a @ b.T / a.shape[1] + 1
    return x * x * x  # a power costs ten times that
