"""Likelihoods of the levels of a pixel, exact and normalised: bits, one probability a byte, a mixture of discretised logistics."""

import abc
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Name = Literal["bits", "levels", "logistics"]
LEAST_LOG_SCALE = -7.0  # of a logistic; half a level is e**-5.5


class Likelihood(abc.ABC):
    """The distribution of one of `num_levels` levels by `size` parameters."""

    num_levels: int
    size: int

    def centred(self, levels: Tensor, dtype: torch.dtype) -> Tensor:
        """Levels as values from −1 to 1, of any shape."""
        return levels.to(dtype) * (2 / (self.num_levels - 1)) - 1

    @abc.abstractmethod
    def log_prob(self, levels: Tensor, parameters: Tensor) -> Tensor:
        """Log-probability in nats, [...], of levels, int64 [...], by parameters, [..., size]."""

    @abc.abstractmethod
    def draw(self, parameters: Tensor, uniform: Tensor, temperature: float) -> Tensor:
        """Levels, int64 [n], by parameters, [n, size], and two uniform numbers each, [n, 2]."""


class Bits(Likelihood):
    """0 or 1, by the log-odds of 1."""

    num_levels, size = 2, 1

    def log_prob(self, levels: Tensor, parameters: Tensor) -> Tensor:
        """Log-probability, [...], of bits, [...], by log-odds, [..., 1]."""
        odds = parameters.squeeze(-1)
        return -F.binary_cross_entropy_with_logits(odds, levels.to(odds.dtype), reduction="none")

    def draw(self, parameters: Tensor, uniform: Tensor, temperature: float) -> Tensor:
        """1 where the first number is below the probability of it."""
        return (uniform[:, 0] < (parameters[:, 0] / temperature).sigmoid()).long()


class Softmax(Likelihood):
    """A byte, by a logit for each of its values (van den Oord, Kalchbrenner, Kavukcuoglu, 2016, arXiv:1601.06759)."""

    num_levels, size = 256, 256

    def log_prob(self, levels: Tensor, parameters: Tensor) -> Tensor:
        """Log-probability, [...], of bytes, [...], by logits, [..., 256]."""
        return parameters.log_softmax(-1).gather(-1, levels.unsqueeze(-1)).squeeze(-1)

    def draw(self, parameters: Tensor, uniform: Tensor, temperature: float) -> Tensor:
        """The first byte whose cumulated probability exceeds the first number."""
        return inverted(parameters / temperature, uniform[:, 0])


class Logistics(Likelihood):
    """A byte, by a mixture of logistics cut at the middles between bytes (Salimans et al., 2017, arXiv:1701.05517).

    Byte i is the value x = 2i/255 − 1 with the probability Σ π [σ((x + 1/255 − μ)/s) − σ((x − 1/255 − μ)/s)], where the
    first term is 1 for byte 255, and the second 0 for byte 0. Parameters are logits of π, μ and ln s of each logistic.
    """

    num_levels = 256

    def __init__(self, num_logistics: int) -> None:
        self.size = 3 * num_logistics

    def log_prob(self, levels: Tensor, parameters: Tensor) -> Tensor:
        """Log-probability, [...], of bytes, [...], by parameters, [..., 3 · num_logistics]."""
        logits, mean, log_scale = _logistics(parameters)
        x = self.centred(levels, parameters.dtype).unsqueeze(-1)
        slope = (-log_scale).exp()
        upper, lower = (x + 1 / 255 - mean) * slope, (x - 1 / 255 - mean) * slope
        # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)): exact where both are near 0 or near 1
        between = F.logsigmoid(upper) + F.logsigmoid(-lower) + (-torch.expm1(-slope * (2 / 255))).log()
        level = levels.unsqueeze(-1)
        inside = torch.where(level == 0, F.logsigmoid(upper), between)
        inside = torch.where(level == 255, F.logsigmoid(-lower), inside)
        return (logits.log_softmax(-1) + inside).logsumexp(-1)

    def draw(self, parameters: Tensor, uniform: Tensor, temperature: float) -> Tensor:
        """A logistic by the first number, and the byte nearest to its value by the second."""
        logits, means, log_scales = _logistics(parameters)
        chosen = inverted(logits / temperature, uniform[:, 0]).unsqueeze(1)
        mean, log_scale = means.gather(1, chosen).squeeze(1), log_scales.gather(1, chosen).squeeze(1)
        part = uniform[:, 1].clamp(1e-12, 1 - 1e-12)
        x = mean + temperature * log_scale.exp() * (part / (1 - part)).log()
        return ((x + 1) * (255 / 2)).round().clamp(0, 255).long()


def of(name: Name, num_logistics: int) -> Likelihood:
    """The likelihood of a name."""
    if name == "bits":
        return Bits()
    return Softmax() if name == "levels" else Logistics(num_logistics)


def inverted(logits: Tensor, uniform: Tensor) -> Tensor:
    """The first class, int64 [n], whose cumulated probability exceeds a number, [n]; logits are [n, classes]."""
    reached = logits.softmax(-1).cumsum(-1)
    return (reached[:, :-1] <= uniform.unsqueeze(1)).sum(1)


def _logistics(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, means and logarithms of scales, [..., num_logistics]."""
    logits, mean, log_scale = parameters.chunk(3, -1)
    # at first the scales are e**-2 and the means spread: a logistic beside all others gets no gradient
    spread = torch.linspace(-1, 1, mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return logits, mean + spread, (log_scale - 2).clamp(min=LEAST_LOG_SCALE)
