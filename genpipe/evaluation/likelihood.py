"""Bits per dimension of discrete images."""

import math

import torch

from genpipe.data.loader import derived_seed
from genpipe.evaluation.judge import Trial
from genpipe.nn.pixels import dequantised


def bits_per_dim(trial: Trial) -> dict[str, float]:
    """Mean bits a pixel of images: a bound, with pixels dequantised to (i + u)/256.

    (−ln p(x)/D + ln 256)/ln 2 (archives/5776; Theis, van den Oord, Bethge, 2015).
    """
    total, pixels = 0.0, 0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for number, x in enumerate(trial.data.split(trial.split)):
            torch.manual_seed(derived_seed(trial.seed, "dequantise", number))
            values = {**x, "images": dequantised(x["images"])}
            total += float(trial.recipe.log_prob(values).double().sum())
            pixels += int(trial.data.units(x).sum())
    return {"bits_per_dim": (-total / pixels + math.log(256)) / math.log(2)}
