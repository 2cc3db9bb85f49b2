"""What models that draw a picture pixel by pixel have in common: log-probabilities, samples, restorations."""

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.nn import discrete
from genpipe.nn.causal import ROWS, CausalNetwork
from genpipe.nn.classes import labels_of, labels_of_batch
from genpipe.nn.pixels import dequantised_to_bytes
from genpipe.params.blocks import Positive

Example = Mapping[str, Tensor]


class Raster:
    """p(x) = Π p(x_i | x_<i) over pixels from left to right and top to bottom, and over the channels of each pixel in their order.

    Bits are the pixels i ≥ 128; their probability is that of a binary image. Of bytes, `log_prob` is the density of
    dequantised pixels, (i + u)/256, which is the probability of the bytes times 256 for each: bits per dimension are exact.
    """

    image_shape: tuple[int, int, int]
    num_classes: int | None
    likelihood: discrete.Likelihood
    network: CausalNetwork

    def set_up(
        self, image_shape: tuple[int, int, int], num_classes: int | None, likelihood: discrete.Likelihood
    ) -> None:
        """What a model knows before it has a network."""
        self.image_shape, self.num_classes, self.likelihood = image_shape, num_classes, likelihood
        self.given = ("labels",) if num_classes else ()
        self.observes: Literal["values", "bits"] = "bits" if likelihood.num_levels == 2 else "values"

    def log_likelihood(self, levels: Tensor, labels: Tensor | None) -> Tensor:
        """Log-probability in nats, [n], of levels, int64 [n, channels, height, width]."""
        levels = levels.movedim(1, -1)
        dtype = next(self.network.parameters()).dtype
        parameters = self.network(self.likelihood.centred(levels, dtype), labels)
        parameters = parameters.unflatten(-1, (levels.shape[-1], self.likelihood.size))
        return self.likelihood.log_prob(levels, parameters).flatten(1).sum(1)

    def of_batch(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Log-probability in nats, [batch], of the images of a training batch, uint8."""
        images = batch["images"]
        levels = (images >= 128).long() if self.observes == "bits" else images.long()
        return self.log_likelihood(levels, labels_of_batch(batch, self.num_classes))

    def log_prob(self, x: Example) -> Tensor:
        """Log-probability in nats, [n], of bits, or log-density of dequantised values; images are in [0, 1]."""
        found = self.log_likelihood(self.levels_of(x["images"]), labels_of(x, self.num_classes))
        return found if self.observes == "bits" else found + math.log(256) * x["images"][0].numel()

    def levels_of(self, images: Tensor) -> Tensor:
        """Levels, int64, of images in [0, 1] of any shape: bits of pixels i ≥ 128, or the bytes of dequantised values."""
        return (images >= 0.5).long() if self.observes == "bits" else dequantised_to_bytes(images).long()

    def sample(self, n: int, given: Example, temperature: Positive = 1.0, cached: bool = True) -> Example:
        """`n` images in [0, 1], drawn pixel by pixel; `temperature` divides the logits and multiplies the scales of logistics.

        Not `cached`, each pixel takes a pass over the whole picture: the same images in far more time.
        """
        known = torch.zeros(n, *self.image_shape, dtype=torch.int64)
        return {"images": self._draw(known, torch.zeros_like(known).bool(), given, temperature, cached)}

    def restore(self, x: Example, keep: Tensor) -> Example:
        """Images, [n, channels, height, width], of which pixels where `keep` is false are drawn, each given those before it.

        Where `keep` is the beginning of the order, as the upper half, that is a draw given all that is kept.
        """
        levels = self.levels_of(x["images"]).cpu()
        return {"images": self._draw(levels, keep.expand_as(levels).cpu(), x, 1.0, cached=True)}

    def _draw(self, known: Tensor, keep: Tensor, given: Example, temperature: float, cached: bool) -> Tensor:
        """Images, [n, channels, height, width], of levels that are kept or drawn; row j looks at row j of the random numbers only.

        Computed in float64, with rows up to a multiple of ROWS: two kernels would have to differ by 10⁻¹⁵ on the
        wrong side of a random number to draw another image.
        """
        n, channels, height, width = known.shape
        weight = next(self.network.parameters())
        uniform = torch.rand(n, height * width * channels * 2, dtype=torch.float64).unflatten(
            1, (height, width, channels, 2)
        )
        more = -n % ROWS
        levels, kept, random = (
            F.pad(x, (0, 0) * (x.dim() - 1) + (0, more)).to(weight.device)
            for x in (known.movedim(1, -1), keep.movedim(1, -1), uniform)
        )
        labels = labels_of(given, self.num_classes)
        labels = None if labels is None else F.pad(labels, (0, more)).to(weight.device)
        with torch.no_grad():
            steps = (Cached if cached else Naive)(self.network, self.likelihood, levels, labels)
            self._fill(steps, kept, random, temperature)
        return (levels[:n].movedim(-1, 1).to(weight.dtype) / (self.likelihood.num_levels - 1)).contiguous()

    def _fill(self, steps: "Naive", kept: Tensor, uniform: Tensor, temperature: float) -> None:
        size = self.likelihood.size
        _, height, width, channels = kept.shape
        for row in range(height):
            steps.begin_row(row)
            for column, channel in itertools.product(range(width), range(channels)):
                where = (slice(None), row, column, channel)
                own = steps.pixel(row, column)[:, channel * size : (channel + 1) * size].contiguous()
                drawn = self.likelihood.draw(own, uniform[where], temperature)
                steps.levels[where] = torch.where(kept[where], steps.levels[where], drawn)
                steps.end(row, column)


class Naive:
    """Each pixel by a pass over the whole picture; `levels`, int64 [n, height, width, channels], are filled from outside."""

    def __init__(
        self,
        network: CausalNetwork,
        likelihood: discrete.Likelihood,
        levels: Tensor,
        labels: Tensor | None,
    ) -> None:
        self.network, self.likelihood = copy.deepcopy(network).double(), likelihood
        self.levels, self.labels = levels, labels

    def begin_row(self, row: int) -> None:
        """Nothing is kept."""

    def pixel(self, row: int, column: int) -> Tensor:
        """Parameters of a pixel, [n, channels · size]; those of a channel are final where all before it is known."""
        x = self.likelihood.centred(self.levels, torch.float64)
        return self.network(x, self.labels)[:, row, column]

    def end(self, row: int, column: int) -> None:
        """Take notice that one more channel of a pixel is known."""


class Cached(Naive):
    """Each pixel from the maps of those before it, which are kept."""

    def __init__(
        self,
        network: CausalNetwork,
        likelihood: discrete.Likelihood,
        levels: Tensor,
        labels: Tensor | None,
    ) -> None:
        super().__init__(network, likelihood, levels, labels)
        n, height, width, _ = levels.shape
        self.state = self.network.begin(n, height, width, labels)

    def begin_row(self, row: int) -> None:
        """What a row needs of those above it."""
        self.network.begin_row(self.state, row)

    def pixel(self, row: int, column: int) -> Tensor:
        """The same parameters. Maps of a pixel do not look at its last channel, so those of the last call stay right."""
        return self.network.pixel(self.state, row, column)

    def end(self, row: int, column: int) -> None:
        """Write what is known of a pixel into the picture that the network looks at."""
        known = self.likelihood.centred(self.levels[:, row, column], torch.float64)
        self.state.picture.set_pixel(row, column, known)
