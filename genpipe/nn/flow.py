"""A flow as the density of images or points: what coupling_flow and glow share.

Images are values in [0, 1], dequantised for their density; a flow works on their logits, or on values about 0. Latents have
independent standard Gaussian or logistic coordinates. Log-likelihoods are in nats.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.errors import BadInput
from genpipe.nn.classes import labels_of, labels_of_batch
from genpipe.nn.examples import Examples, examples_of
from genpipe.nn.flow_couplings import Place
from genpipe.nn.flow_steps import Centre, Chain, Logit, Step, starting
from genpipe.nn.multi_scale import MultiScale
from genpipe.nn.pixels import dequantised
from genpipe.params.blocks import Factor

Latents = Literal["gaussian", "logistic"]
Alpha = Annotated[float, Field(ge=0, lt=0.5)]
ALPHA = 0.05  # of RealNVP
LEAST = 4  # rows and columns of the last scale
NUM_STARTING = 256  # rows that ActNorm starts from


class Density(nn.Module):
    """A multi-scale flow with what goes before and after it."""

    def __init__(self, examples: Examples, alpha: Alpha | None, flow: MultiScale, latents: Latents) -> None:
        super().__init__()
        self.examples, self.flow, self.latents = examples, flow, latents
        self.num_classes: int | None = None if flow.top is None else flow.top.num_classes
        self.opening = self._opening(alpha)

    def _opening(self, alpha: Alpha | None) -> Step:
        if self.examples.key == "points":
            return Chain()
        return Logit(alpha) if alpha else Centre()

    def latents_of(self, x: Mapping[str, Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Latents, [n, dim], and the log of the absolute determinant, [n], of values in [0, 1] or points."""
        found = x[self.examples.key]
        opened, opening = self.opening(found if found.dim() == 4 else found[:, :, None, None])
        z, log_det = self.flow(opened, labels)
        return z, opening + log_det

    def examples_of_latents(self, z: Tensor, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Images or points, [n, *shape], of latents, [n, dim]."""
        made = self.opening.inverse(self.flow.inverse(z, labels_of(given, self.num_classes)))
        return {self.examples.key: made.view(len(z), *self.examples.shape)}

    def prior(self, z: Tensor) -> Tensor:
        """ln p(z), [n]."""
        if self.latents == "logistic":
            return -(F.softplus(z) + F.softplus(-z)).sum(1)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    def nats(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """−ln p of a training batch, its mean, and for images bits a pixel of the bytes: (−ln p/D + ln 256)/ln 2."""
        x = self.observed(batch)
        z, log_det = self.latents_of(x, labels_of_batch(batch, self.num_classes))
        nats = -(self.prior(z) + log_det).mean()
        if self.examples.key == "points":
            return nats, {}
        bits = (nats / z.shape[1] + math.log(256)) / math.log(2)
        return nats, {"bits_per_dim": bits.detach()}

    def observed(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Dequantised images of bytes, with noise of torch's global generator, or points."""
        key, dtype = self.examples.key, next(self.parameters()).dtype
        return {key: dequantised(batch[key], dtype) if key == "images" else batch[key].to(dtype)}

    def start(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Start each ActNorm that was not started from the first 256 rows of some batches, or a few more."""
        rows: list[Mapping[str, Tensor]] = []
        for batch in batches:
            rows.append(batch)
            if sum(len(part[self.examples.key]) for part in rows) >= NUM_STARTING:
                break
        keys = [key for key in (self.examples.key, "labels") if key in rows[0]]
        whole = {key: torch.cat([part[key] for part in rows]) for key in keys}
        with starting(self):
            self.latents_of(self.observed(whole), labels_of_batch(whole, self.num_classes))

    def draw(self, n: int, temperature: float) -> Tensor:
        """Latents, [n, dim], of the prior, times the temperature, by torch's global generator."""
        like = next(self.parameters())
        size = (n, math.prod(self.examples.shape))
        if self.latents == "gaussian":
            return temperature * torch.randn(size, dtype=like.dtype, device=like.device)
        u = torch.rand(size, dtype=like.dtype, device=like.device)
        return temperature * torch.logit(u.clamp(1e-6, 1 - 1e-6))

    def sample(self, n: int, given: Mapping[str, Tensor], temperature: float) -> dict[str, Tensor]:
        """`n` examples of the latents that `draw` gives; images are cut off to [0, 1]."""
        made = self.examples_of_latents(self.draw(n, temperature), given)
        return {key: x.clamp(0, 1) if key == "images" else x for key, x in made.items()}


class DensityFlow:
    """What models with a `density` have in common: latents, examples, samples."""

    density: Density

    def forward(self, x: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Latents, [n, dim], those of the first scale first, and the log-determinant, [n]."""
        return self.density.latents_of(x, labels_of(x, self.density.num_classes))

    def inverse(self, z: Tensor, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Images or points of latents, [n, dim]."""
        return self.density.examples_of_latents(z, given)

    def prior_log_prob(self, z: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """Log-density in nats, [n], of standard Gaussian or logistic latents; learned priors are steps of the flow."""
        return self.density.prior(z)

    def sample(self, n: int, given: Mapping[str, Tensor], temperature: Factor = 1.0) -> Mapping[str, Tensor]:
        """`n` examples of latents of the prior, times the temperature; images in [0, 1]."""
        return self.density.sample(n, given, temperature)


def density_examples(image_shape: tuple[int, int, int] | None, dim: int | None) -> tuple[Examples, Place]:
    """Images or points, and their shape as images; BadInput for points without two halves."""
    examples = examples_of(image_shape, dim)
    if examples.shape == (1,):
        raise BadInput(
            "a coupling moves one coordinate by another, and points of this data have one; take other data"
        )
    place = (*examples.shape, 1, 1) if examples.key == "points" else examples.shape
    return examples, (place[0], place[1], place[2])


def scales_of(examples: Examples, num_scales: int | None) -> int:
    """How often images are halved: as asked, or until 4 rows or columns are left; 0 for points. BadInput where they cannot be."""
    if examples.key == "points":
        _refuse("num_scales", num_scales)
        return 0
    _, height, width = examples.shape
    possible = _halvings(height, width)
    if not possible:
        raise BadInput(
            f"the sides of images must be even and 8 or more for this network, not {height}×{width}; set datasets.*.image_size"
        )
    if num_scales is None:
        return possible
    if height % 2**num_scales or width % 2**num_scales:
        raise BadInput(
            f"train.network.num_scales: images of {height}×{width} cannot be halved {num_scales} times; take {possible} or fewer"
        )
    return num_scales


def _halvings(height: int, width: int) -> int:
    number = 0
    while height % 2 == width % 2 == 0 and min(height, width) // 2 >= LEAST:
        number, height, width = number + 1, height // 2, width // 2
    return number


def alpha_of(examples: Examples, alpha: Alpha | None, default: Alpha) -> Alpha | None:
    """α of the logits of images, or the default; BadInput where points are given one."""
    if examples.key == "points":
        _refuse("alpha", alpha)
        return None
    return default if alpha is None else alpha


def _refuse(knob: str, value: float | None) -> None:
    if value is not None:
        raise BadInput(f"train.network.{knob} is of images, and these are points; leave it out")


def shapes_of(place: Place, num_scales: int) -> Sequence[Place]:
    """The shapes, from the first on, before each scale: half of the channels of the scale before, halved sides."""
    channels, height, width = place
    return [(channels * 2**i, height // 2**i, width // 2**i) for i in range(num_scales + 1)]


def squeezed(place: Place) -> Place:
    """The shape after squares of 2×2 pixels became channels."""
    return 4 * place[0], place[1] // 2, place[2] // 2
