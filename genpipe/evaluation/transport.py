"""Wasserstein-1 distances between samples, exact by linear programming; and their sliced form.

The distance between two sets of n is that of two distributions drawn n times, which is above 0 for equal ones; real ones
against real ones show by how much. The value of a critic is never called so (Stanczuk et al., 2021, arXiv:2103.01678).
"""

import numpy as np
import torch
from torch import Tensor

from genpipe.evaluation.features import compared
from genpipe.evaluation.judge import Trial

MOST_IMAGES = 256  # of each side
NUM_DIRECTIONS = 128


def judge_transport(trial: Trial) -> dict[str, float]:
    """The distance between samples and real images in the features of the yardstick, beside that of others."""
    found = compared(trial)
    real = found.side.real[:MOST_IMAGES]
    metrics = {
        f"feature_wasserstein{suffix}": wasserstein_1(real, features[:MOST_IMAGES])
        for suffix, features in found.sets.items()
    }
    return metrics | {"feature_wasserstein_num_images": float(len(real))}


def wasserstein_1(a: np.ndarray, b: np.ndarray) -> float:
    """W₁ of the uniform distributions on the rows of two arrays, float [n, dim] and [m, dim], with Euclidean costs.

    With n = m some assignment is optimal among all plans (Birkhoff, 1946); else the linear program is solved whole.
    """
    from scipy.optimize import linear_sum_assignment  # takes a third of a second to import

    cost = costs(a, b)
    if len(a) != len(b):
        return transport_cost(cost)
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())


def transport_cost(cost: np.ndarray) -> float:
    """The least mean cost of a plan between uniform distributions, cost [n, m]: by the dual simplex method of HiGHS."""
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    n, m = cost.shape
    rows, columns = kron(eye_array(n), np.ones((1, m))), kron(np.ones((1, n)), eye_array(m))
    marginals = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    solved = linprog(cost.ravel(), A_eq=vstack([rows, columns]).tocsr(), b_eq=marginals, method="highs-ds")
    if solved.status != 0:
        raise ArithmeticError(f"the plan of transport was not found: {solved.message}")
    return float(solved.fun)


def costs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances of all pairs, float64 [n, m]."""
    x, y = (torch.from_numpy(points.astype(np.float64)) for points in (a, b))
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def sliced_wasserstein_1(a: np.ndarray, b: np.ndarray, seed: int = 0) -> float:
    """The mean over 128 random directions of W₁ between projections of two arrays, float [n, dim] each."""
    directions = torch.randn(
        NUM_DIRECTIONS, a.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    unit = torch.nn.functional.normalize(directions)
    x, y = (projected(part, unit) for part in (a, b))
    return float((x - y).abs().mean())


def projected(points: np.ndarray, directions: Tensor) -> Tensor:
    """Projections of points, [n, dim], on directions, [k, dim], each sorted, [n, k]."""
    return (torch.from_numpy(points.astype(np.float64)) @ directions.T).sort(0).values
