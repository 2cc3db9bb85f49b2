"""Flows at several scales: after each scale half of the channels are done, the others go on at half the resolution.

Latents are standard: a learned prior is a step that standardises them, y = (x − μ)/σ with μ and σ of what is known, and −ln σ
is part of the log-determinant. So the density is the same, and latents of all models can be drawn, scaled and compared alike.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from genpipe.nn.flow_couplings import Coupling, Perceptron, Place, ZeroConv
from genpipe.nn.flow_steps import Step


class TopPrior(nn.Module):
    """y = (x − μ) e^−l for each latent of the last scale, and each class where there are some."""

    def __init__(self, place: Place, num_classes: int | None) -> None:
        super().__init__()
        self.place, self.num_classes = place, num_classes
        self.table = nn.Embedding(num_classes or 1, 2 * math.prod(place))
        nn.init.zeros_(self.table.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """The standardised latents, and −Σ l."""
        mean, log_deviation = self._of(x, labels)
        return (x - mean) * (-log_deviation).exp(), -log_deviation.flatten(1).sum(1)

    def inverse(self, y: Tensor, labels: Tensor | None) -> Tensor:
        """x = y e^l + μ."""
        mean, log_deviation = self._of(y, labels)
        return y * log_deviation.exp() + mean

    def _of(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        rows = torch.zeros(len(x), dtype=torch.int64, device=x.device) if labels is None else labels
        mean, log_deviation = self.table(rows).unflatten(1, (2, *self.place)).unbind(1)
        return mean, log_deviation


def split_prior(place: Place) -> Coupling:
    """The second half of the channels, standardised by what one layer that starts at 0 makes of the first (Glow)."""

    def make(given: Place, after: int) -> nn.Module:
        is_point = given[1] == given[2] == 1
        return Perceptron(given[0], after, 0, 0) if is_point else ZeroConv(given[0], after)

    return Coupling(place, "free", make)


class MultiScale(nn.Module):
    """Images ↔ latents, [n, channels · height · width], those of the first scale first."""

    def __init__(
        self, scales: Sequence[Step], places: Sequence[Place], learned: bool, num_classes: int | None
    ) -> None:
        """`places`: the shape that each scale puts out; half of its channels go on to the next."""
        super().__init__()
        self.places = tuple(places)
        self.scales = nn.ModuleList(scales)
        self.priors = nn.ModuleList(split_prior(place) for place in places[:-1] if learned)
        self.top = TopPrior(places[-1], num_classes) if learned or num_classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents, and the log of the absolute determinant, [n]."""
        log_det = x.new_zeros(len(x))
        done: list[Tensor] = []
        for number, scale in enumerate(self.scales):
            x, change = scale(x)
            log_det = log_det + change
            if number + 1 < len(self.scales):
                if self.priors:
                    x, change = self.priors[number](x)
                    log_det = log_det + change
                x, latents = x.chunk(2, 1)
                done.append(latents.flatten(1))
        if self.top is not None:
            x, change = self.top(x, labels)
            log_det = log_det + change
        return torch.cat([*done, x.flatten(1)], 1), log_det

    def inverse(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images of latents."""
        sizes = [math.prod(place) // 2 for place in self.places[:-1]] + [math.prod(self.places[-1])]
        *done, last = z.split(sizes, 1)
        x = last.unflatten(1, self.places[-1])
        if self.top is not None:
            x = self.top.inverse(x, labels)
        for number in reversed(range(len(self.scales))):
            if number < len(done):
                channels, *sides = self.places[number]
                x = torch.cat([x, done[number].unflatten(1, (channels // 2, *sides))], 1)
                if self.priors:
                    x = cast(Step, self.priors[number]).inverse(x)
            x = cast(Step, self.scales[number]).inverse(x)
        return x
