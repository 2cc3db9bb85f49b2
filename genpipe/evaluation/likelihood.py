"""Bits per dimension of discrete images, or nats of binary ones."""

import math

import torch

from genpipe.data.loader import derived_seed
from genpipe.evaluation.bounds import bits, pixelwise_nats
from genpipe.evaluation.judge import Trial
from genpipe.nn.pixels import dequantised
from genpipe.sampling.draw import whole


def bits_per_dim(trial: Trial) -> dict[str, float]:
    """Mean bits a pixel of images: a bound, with pixels dequantised to (i + u)/256; exact where a density is one number in each interval.

    (−ln p(x)/D + ln 256)/ln 2 (archives/5776; Theis, van den Oord, Bethge, 2015). Of a model of bits it is nats an image: bits of
    binary pixels and of bytes cannot be compared.
    """
    if trial.recipe.observes == "bits":
        return nats_of_bits(trial)
    total, pixels = 0.0, 0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for number, x in enumerate(trial.data.split(trial.split)):
            torch.manual_seed(derived_seed(trial.seed, "dequantise", number))
            values = {**x, "images": dequantised(x["images"])}
            total += float(trial.recipe.log_prob(values).double().sum())
            pixels += int(trial.data.units(x).sum())
    return {"bits_per_dim": (-total / pixels + math.log(256)) / math.log(2)}


def nats_of_bits(trial: Trial) -> dict[str, float]:
    """Mean nats of binary images, pixels i ≥ 128, and those of independent pixels."""
    images = whole(trial.data, trial.split)["images"]
    with torch.no_grad():
        total = sum(
            float(trial.recipe.log_prob({**x, "images": bits(x["images"]).float()}).double().sum())
            for x in trial.data.split(trial.split)
        )
    found = {"nats_per_image": -total / len(images)}
    return found | {"nats_per_image_pixelwise": pixelwise_nats(trial.data, images, levels=2)}
