"""What the bound on the log-likelihood of a model with latents is made of (Kingma, Welling, 2013, arXiv:1312.6114).

All are sums over the dimensions of an example, in nats with all constants, so a mean over rows is a mean over examples.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) ‖ N(0, I)), [batch], of means and log-variances, [batch, latent]."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def moved(mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
    """Draws of N(mean, exp(log_var)) as a function of standard noise, through which gradients flow; all [batch, latent]."""
    return mean + noise * (log_var / 2).exp()


def log_ratio(z: Tensor, noise: Tensor, log_var: Tensor) -> Tensor:
    """ln N(z; 0, I) − ln N(z; mean, exp(log_var)), [batch], where z = moved(mean, log_var, noise)."""
    return 0.5 * (noise.square() + log_var - z.square()).sum(1)


def bernoulli(bits: Tensor, logits: Tensor) -> Tensor:
    """Log-probability, [batch], of 0 and 1, [batch, ...]; `logits` are the log-odds of 1."""
    return -F.binary_cross_entropy_with_logits(logits, bits, reduction="none").flatten(1).sum(1)


def gaussian(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Log-density, [batch], of values, [batch, ...]; `log_deviation` has the shape of an example, or is one number for all."""
    distance = ((x - mean) * (-log_deviation).exp()).square()
    constants = log_deviation + 0.5 * math.log(2 * math.pi)
    return -(0.5 * distance + constants.expand_as(distance)).flatten(1).sum(1)


def standard(n: int, dim: int, like: Tensor) -> Tensor:
    """Standard Gaussian noise, [n, dim], with the type and the place of another tensor."""
    return torch.randn(n, dim, dtype=like.dtype, device=like.device)
