"""Bits per dimension of discrete images."""

import math

import torch
from torch import Tensor

from genpipe.data.loader import derived_seed
from genpipe.nn.pixels import dequantised
from genpipe.recipe import LogProb

CHUNK = 100


def bits_per_dim(model: LogProb, images: Tensor, seed: int) -> float:
    """Mean bits a pixel of images, uint8 [n, height, width]: a bound, with pixels dequantised to (i + u)/256.

    (−ln p(x)/D + ln 256)/ln 2 (archives/5776; Theis, van den Oord, Bethge, 2015).
    """
    total = 0.0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for number, chunk in enumerate(images.split(CHUNK)):
            torch.manual_seed(derived_seed(seed, "dequantise", number))
            total += float(model.log_prob(dequantised(chunk)).double().sum())
    dim = images[0].numel()
    return (-total / len(images) / dim + math.log(256)) / math.log(2)
