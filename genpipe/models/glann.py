"""GLANN: Generative Latent Nearest Neighbors, without an adversary (Hoshen, Li, Malik, 2018, arXiv:1812.08985; archives/6394).

First a code of each training image is learned with the decoder (GLO: Bojanowski et al., 2017, arXiv:1707.05776), then a map
from noise to the codes (IMLE: Li, Malik, 2018, arXiv:1809.09087). Codes lie on the unit sphere. Departs from the paper: no
perceptual loss of a pretrained network, but the Laplacian pyramid of GLO.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Example, Samples
from genpipe.errors import BadInput
from genpipe.nn.conv import ConvGenerator
from genpipe.nn.pixels import scaled
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


def pyramid(x: Tensor) -> list[Tensor]:
    """Two bands and the rest of a Laplacian pyramid, by means of 2×2 pixels, of images, [batch, channels, height, width].

    Bands have the height and width, half of them, and a quarter.
    """
    bands: list[Tensor] = []
    for _ in range(2):
        coarse = F.avg_pool2d(x, 2)
        bands.append(x - coarse.repeat_interleave(2, 2).repeat_interleave(2, 3))
        x = coarse
    return [*bands, x]


def pyramid_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of each band, added up; the 2^2j of GLO is the number of pixels that a mean divides by."""
    return torch.stack([band.abs().mean() for band in pyramid(x - y)]).sum()


def whitened(x: Tensor, dim: int) -> Tensor:
    """The first `dim` principal components, [batch, dim], each of unit variance, of rows, [batch, feature]."""
    centred = x - x.mean(0)
    variance, axes = (part[..., -dim:] for part in torch.linalg.eigh((centred.T @ centred / len(x)).double()))
    sums = axes.sum(0)
    axes = axes * torch.copysign(torch.ones_like(sums), sums)  # their signs are arbitrary otherwise
    deviation = variance.clamp(min=1e-8).sqrt()  # with fewer rows than features some have none
    return centred @ (axes / deviation).to(x.dtype)


class GLANN(Recipe, Samples, Decodes):
    """A decoder of one code a training image, and a map from noise to such codes."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_images: int,
        latent_dim: Count = 32,
        width: Count = 32,
        noise_dim: Count = 16,
        hidden_dim: Count = 128,
        num_candidates: Count = 4096,
        mapper_share: DecayRate = 0.3,
    ) -> None:
        super().__init__()
        if latent_dim > math.prod(image_shape):
            raise BadInput(
                f"latent_dim: must be {math.prod(image_shape)} or fewer, the pixels of an image, not {latent_dim}"
            )
        self.latent_dim = latent_dim
        self.noise_dim = noise_dim
        self.num_candidates = num_candidates
        self.mapper_share = mapper_share
        self.codes = nn.Embedding(num_images, latent_dim)
        self.decoder = ConvGenerator(image_shape, width, latent_dim)
        self.mapper = nn.Sequential(  # no batch norm: a candidate is the same alone and among others
            nn.Linear(noise_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, latent_dim),
        )

    def phases(self) -> tuple[Phase, ...]:
        """Codes with the decoder; then, at fixed codes, the map to them."""
        glo = Update("glo", self.reconstruction_error, (self.codes, self.decoder))
        imle = Update("imle", self.nearest_distance, (self.mapper,))
        return (
            Phase("glo", (glo,), share=1 - self.mapper_share, prepare=self.start_codes),
            Phase("imle", (imle,), share=self.mapper_share, prepare=self.normalise_codes),
        )

    def start_codes(self, batches: Iterable[Batch]) -> None:
        """Codes start from the principal components of their images."""
        images: list[Tensor] = []
        rows: list[Tensor] = []
        for batch in batches:
            images.append(batch["images"])
            rows.append(batch["rows"])
            if sum(map(len, rows)) >= self.codes.num_embeddings:
                break
        found = whitened(scaled(torch.cat(images).flatten(1)), self.latent_dim)
        with torch.no_grad():
            self.codes.weight[torch.cat(rows)] = found.to(self.codes.weight)

    def reconstruction_error(self, batch: Batch) -> Loss:
        """Laplacian-pyramid distance, in pixels of [−1, 1], between images and what their codes decode to."""
        real = 2 * scaled(batch["images"], self.codes.weight.dtype) - 1
        made = self.decoder(F.normalize(self.codes(batch["rows"])))
        return Loss(pyramid_distance(made, real), {"mse": F.mse_loss(made, real).detach() / 4})

    def normalise_codes(self, batches: Iterable[Batch]) -> None:
        """Put every code on the unit sphere, where the decoder took it to be."""
        with torch.no_grad():
            self.codes.weight.copy_(F.normalize(self.codes.weight))

    def nearest_distance(self, batch: Batch) -> Loss:
        """Mean squared distance of each code from the nearest of many mapped noises: every code has one, none is left out."""
        wanted = self.codes(batch["rows"]).detach()
        noise = torch.randn(self.num_candidates, self.noise_dim, dtype=wanted.dtype, device=wanted.device)
        with torch.no_grad():  # on the sphere the largest product is the least distance
            nearest = (wanted @ self.mapped(noise).T).argmax(1)
        return Loss((self.mapped(noise[nearest]) - wanted).square().sum(1).mean())

    def mapped(self, noise: Tensor) -> Tensor:
        """Codes on the unit sphere, [batch, latent_dim], of noise, [batch, noise_dim]."""
        return F.normalize(self.mapper(noise))

    def sample(self, n: int, given: Example) -> Example:
        """`n` images in [0, 1] from mapped Gaussian noise."""
        return self.decode(self.draw_codes(n, given), given)

    def draw_codes(self, n: int, given: Example) -> Tensor:
        """Codes on the unit sphere, [n, latent_dim], of Gaussian noise."""
        return self.mapped(torch.randn(n, self.noise_dim))

    def decode(self, z: Tensor, given: Example) -> Example:
        """Images in [0, 1], [batch, channels, height, width]; only the direction of a code counts."""
        return {"images": (self.decoder(F.normalize(z)) + 1) / 2}
