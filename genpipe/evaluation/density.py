"""Log-densities of points."""

import math

import torch

from genpipe.evaluation.judge import Trial
from genpipe.sampling.draw import in_chunks, whole


def judge_density(trial: Trial) -> dict[str, float]:
    """Mean negative log-density in nats a point, and that of a Gaussian with the mean and covariance of training points."""
    total, number = 0.0, 0
    for x in trial.data.split(trial.split):
        total -= float(in_chunks(trial.recipe.log_prob, x).double().sum())
        number += len(x["points"])
    train, points = (whole(trial.data, split)["points"].double() for split in ("train", trial.split))
    baseline = gaussian_nats(train, points)
    known = {"nats_per_point_gaussian": baseline} if math.isfinite(baseline) else {}
    return {"nats_per_point": total / number, **known}


def gaussian_nats(train: torch.Tensor, points: torch.Tensor) -> float:
    """Mean nats of points, [n, dim], under a Gaussian fitted to others; not finite where the covariance is singular."""
    centred = points - train.mean(0)
    covariance = torch.cov(train.T).reshape(train.shape[1], train.shape[1])
    distance = (centred @ torch.linalg.pinv(covariance) * centred).sum(1).mean()
    log_det = torch.linalg.slogdet(covariance).logabsdet
    return float((distance + log_det + train.shape[1] * math.log(2 * math.pi)) / 2)
