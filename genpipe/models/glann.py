"""GLANN: Generative Latent Nearest Neighbors, without an adversary (Hoshen, Li, Malik, 2018, arXiv:1812.08985; archives/6394).

First a code of each training image is learned with the decoder (GLO: Bojanowski et al., 2017, arXiv:1707.05776), then a map
from noise to the codes (IMLE: Li, Malik, 2018, arXiv:1809.09087). Codes lie on the unit sphere. Departs from the paper: no
perceptual loss of a pretrained network, but the Laplacian pyramid of GLO. `codes: false` is IMLE alone: the decoder itself is
trained from noise on the sphere, by the squared differences of pixels.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Encodes, Example, Samples
from genpipe.errors import BadInput
from genpipe.nn.conv import ConvGenerator
from genpipe.nn.nearest import nearest, nearest_on_sphere
from genpipe.nn.pixels import scaled
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update

NUM_STARTS = 256  # codes, the same for all images, of which an encoding begins with the best
ENCODE_STEPS = 20
ENCODE_RATE = 0.2
CHUNK = 512  # candidate images that are in memory at once
MAPPER = {"noise_dim": 16, "hidden_dim": 128, "mapper_share": 0.3}  # where nothing else is said


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


def pyramid_distances(x: Tensor, y: Tensor) -> Tensor:
    """The distance of each pair of images, [batch]."""
    return torch.stack([band.abs().mean((1, 2, 3)) for band in pyramid(x - y)]).sum(0)


def whitened(x: Tensor, dim: int) -> Tensor:
    """The first `dim` principal components, [batch, dim], each of unit variance, of rows, [batch, feature]."""
    centred = x - x.mean(0)
    variance, axes = (part[..., -dim:] for part in torch.linalg.eigh((centred.T @ centred / len(x)).double()))
    sums = axes.sum(0)
    axes = axes * torch.copysign(torch.ones_like(sums), sums)  # their signs are arbitrary otherwise
    deviation = variance.clamp(min=1e-8).sqrt()  # with fewer rows than features some have none
    return centred @ (axes / deviation).to(x.dtype)


class GLANN(Recipe, Samples, Encodes, Decodes):
    """A decoder of one code a training image, and a map from noise to such codes; or a decoder of noise."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_images: int,
        latent_dim: Count = 32,
        width: Count = 32,
        noise_dim: Count | None = None,
        hidden_dim: Count | None = None,
        num_candidates: Count = 4096,
        mapper_share: DecayRate | None = None,
        codes: bool = True,
    ) -> None:
        """`noise_dim`, `hidden_dim` and `mapper_share` are of the map to codes; `None` stands for 16, 128 and 0.3."""
        super().__init__()
        given = {"noise_dim": noise_dim, "hidden_dim": hidden_dim, "mapper_share": mapper_share}
        known = {name: value for name, value in given.items() if value is not None}
        if latent_dim > math.prod(image_shape):
            raise BadInput(
                f"latent_dim: must be {math.prod(image_shape)} or fewer, the pixels of an image, not {latent_dim}"
            )
        self.latent_dim = latent_dim
        self.num_candidates = num_candidates
        self.has_codes = codes
        # no batch norm in what makes candidates: one is the same alone and among others
        if not codes:
            for name in known:
                raise BadInput(
                    f"train.network.{name} has no effect without codes; take it out, or codes: false"
                )
            self.noise_dim = latent_dim
            self.decoder = nn.Sequential(ConvGenerator(image_shape, width, latent_dim, plain=True), nn.Tanh())
            self.mapper = nn.Identity()
            return
        chosen = MAPPER | known
        self.noise_dim, self.mapper_share = int(chosen["noise_dim"]), chosen["mapper_share"]
        self.codes = nn.Embedding(num_images, latent_dim)
        self.decoder = ConvGenerator(image_shape, width, latent_dim)
        self.mapper = _mapper(self.noise_dim, int(chosen["hidden_dim"]), latent_dim)

    def phases(self) -> tuple[Phase, ...]:
        """Codes with the decoder; then, at fixed codes, the map to them. Without codes the decoder alone."""
        if not self.has_codes:
            return (Phase("imle", (Update("imle", self.nearest_image_distance, (self.decoder,)),)),)
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
        with torch.no_grad():
            nearest = nearest_on_sphere(wanted, self.mapped(noise))
        return Loss((self.mapped(noise[nearest]) - wanted).square().sum(1).mean())

    def nearest_image_distance(self, batch: Batch) -> Loss:
        """Mean squared difference of pixels in [−1, 1] between each image and the nearest of many that noise makes: none is left out."""
        real = 2 * scaled(batch["images"], next(self.parameters()).dtype) - 1
        z = self.mapped(
            torch.randn(self.num_candidates, self.noise_dim, dtype=real.dtype, device=real.device)
        )
        with torch.no_grad():
            chosen = nearest(real.flatten(1), (self.decoder(part).flatten(1) for part in z.split(CHUNK)))
        error = F.mse_loss(self.decoder(z[chosen]), real)
        return Loss(error, {"mse": error.detach() / 4})

    def mapped(self, noise: Tensor) -> Tensor:
        """Codes on the unit sphere, [batch, latent_dim], of noise, [batch, noise_dim]; without codes the directions of the noise."""
        return F.normalize(self.mapper(noise))

    def sample(self, n: int, given: Example) -> Example:
        """`n` images in [0, 1] from mapped Gaussian noise."""
        return self.decode(self.draw_codes(n, given), given)

    def draw_codes(self, n: int, given: Example) -> Tensor:
        """Codes on the unit sphere, [n, latent_dim], of Gaussian noise."""
        return self.mapped(torch.randn(n, self.noise_dim))

    def encode(self, x: Example) -> Tensor:
        """Codes on the unit sphere, [n, latent_dim], that decode to nearly the images; there is no network for that.

        From the best of some mapped noises, the same ones for all images, some steps of Adam lead down the pyramid distance.
        """
        wanted = 2 * x["images"] - 1
        z = self._best_starts(wanted)
        mean, square = torch.zeros_like(z), torch.zeros_like(z)
        for step in range(1, ENCODE_STEPS + 1):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                distance = pyramid_distances(self.decoder(F.normalize(z)), wanted).sum()
                (gradient,) = torch.autograd.grad(distance, z)
            mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient.square()
            moved = (mean / (1 - 0.9**step)) / ((square / (1 - 0.99**step)).sqrt() + 1e-8)
            rate = ENCODE_RATE * (1 - (step - 1) / ENCODE_STEPS)
            z = F.normalize(z.detach() - rate * moved * z.shape[1] ** -0.5)
        return z

    def _best_starts(self, wanted: Tensor) -> Tensor:
        """The codes, [n, latent_dim], of NUM_STARTS whose images are nearest to those wanted, pixel by pixel."""
        noise = torch.randn(NUM_STARTS, self.noise_dim, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            codes = self.mapped(noise.to(wanted))
            distances = torch.cdist(wanted.flatten(1), self.decoder(codes).flatten(1))
        return codes[distances.argmin(1)]

    def decode(self, z: Tensor, given: Example) -> Example:
        """Images in [0, 1], [batch, channels, height, width]; only the direction of a code counts."""
        return {"images": (self.decoder(F.normalize(z)) + 1) / 2}


def _mapper(noise_dim: int, hidden_dim: int, latent_dim: int) -> nn.Sequential:
    """[batch, noise_dim] → [batch, latent_dim]."""
    return nn.Sequential(
        nn.Linear(noise_dim, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, latent_dim),
    )
