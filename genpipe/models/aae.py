"""AAE: Adversarial Autoencoders (Makhzani et al., 2015, arXiv:1511.05644; archives/5716).

An autoencoder whose codes a critic cannot tell from Gaussian noise, so that noise decodes to new images. The weight of the
reconstruction against the critic is the ratio of two learning rates: the encoder has an optimiser for each.
Labels go in in two ways: `conditional` gives the class to the decoder (section 4 of the paper) and to the critic, so that
the code has what is not the class; the prior `modes` has a Gaussian for each class, and the critic gets the class too (section 2.3).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Encodes, Example, Samples
from genpipe.errors import BadInput
from genpipe.nn.classes import condition_classes, labels_of, labels_of_batch
from genpipe.nn.conv import ConvEncoder, ConvGenerator
from genpipe.nn.pixels import scaled
from genpipe.params.blocks import Count
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update

APART = 3.0  # deviations of a mode from its centre to the border with its neighbour


class UnderClass(nn.Module):
    """A network of codes, [batch, dim], that gets a learned vector of the class beside them, [batch, 2 dim]."""

    def __init__(self, network: nn.Module, num_classes: int, dim: int) -> None:
        super().__init__()
        self.network = network
        self.classes = nn.Embedding(num_classes, dim)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Codes, [batch, dim], and classes, int64 [batch] → what the network makes of both."""
        return self.network(torch.cat([z, self.classes(labels).to(z)], 1))


def modes(num_classes: int) -> tuple[list[list[float]], float]:
    """Centres of the classes in the first two dimensions, on a circle, and the deviation of each class around its own.

    Radius and deviation are such that all classes together have about the variance 1 in each dimension.
    """
    half = math.sin(math.pi / max(num_classes, 2))  # of the way to the next centre, for the radius 1
    radius = (0.5 + (half / APART) ** 2) ** -0.5
    angles = [2 * math.pi * number / num_classes for number in range(num_classes)]
    return [[radius * math.cos(a), radius * math.sin(a)] for a in angles], radius * half / APART


class AAE(Recipe, Samples, Encodes, Decodes):
    """Encoder and decoder against the error of reconstruction; encoder against a critic of codes."""

    centres: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        latent_dim: Count = 8,
        width: Count = 32,
        hidden_dim: Count = 256,
        conditional: bool = False,
        prior: Literal["gaussian", "modes"] = "gaussian",
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.is_conditional, self.has_modes = conditional, prior == "modes"
        self.num_classes = condition_classes(
            conditional or self.has_modes, num_classes, "conditional" if conditional else "prior"
        )
        self.given = ("labels",) if self.num_classes else ()
        in_dim = 2 * latent_dim if conditional else latent_dim
        self.encoder = ConvEncoder(image_shape, width, latent_dim)
        decoder = ConvGenerator(image_shape, width, in_dim)
        critic = nn.Sequential(  # score of a code: the log-odds that it is noise and not of an image
            nn.Linear(2 * latent_dim if self.num_classes else latent_dim, hidden_dim),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden_dim, hidden_dim),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden_dim, 1),
            nn.Flatten(0),
        )
        self.decoder = self._under_class(decoder) if conditional else decoder
        self.critic = self._under_class(critic)
        if self.num_classes and self.has_modes:
            if latent_dim < 2:
                raise BadInput("train.network.prior: modes takes a latent_dim of 2 or more, not 1")
            centres, self.deviation = modes(self.num_classes)
            self.register_buffer("centres", torch.tensor(centres))

    def phases(self) -> tuple[Phase, ...]:
        """Three updates; the encoder moves in two of them, each with an optimiser of its own."""
        reconstruct = Update("reconstruct", self.reconstruction_error, (self.encoder, self.decoder))
        critic = Update("critic", self.critic_loss, (self.critic,))
        match = Update("match", self.match_loss, (self.encoder,))
        return (Phase("adversarial", (reconstruct, critic, match)),)

    def reconstruction_error(self, batch: Batch) -> Loss:
        """Mean squared difference of pixels in [−1, 1]."""
        x = self._scaled(batch)
        return Loss(F.mse_loss(self._decoded(self.encoder(x), labels_of_batch(batch, self.num_classes)), x))

    def critic_loss(self, batch: Batch) -> Loss:
        """Cross entropy in nats of telling noise from codes, ln 4 where the critic cannot distinguish them."""
        labels = labels_of_batch(batch, self.num_classes)
        with torch.no_grad():  # the critic's turn: nothing flows to the encoder
            code = self.encoder(self._scaled(batch))
        noise = self._of_prior(torch.randn_like(code), labels)
        twice = None if labels is None else labels.repeat(2)
        score_noise, score_code = self._scores(torch.cat([noise, code]), twice).chunk(2)
        value = F.softplus(-score_noise).mean() + F.softplus(score_code).mean()
        return Loss(value, {"score_gap": (score_noise - score_code).mean().detach()})

    def match_loss(self, batch: Batch) -> Loss:
        """Cross entropy in nats of passing codes off as noise; `code_square` is the mean square of a code, 1 for noise."""
        code = self.encoder(self._scaled(batch))
        value = F.softplus(-self._scores(code, labels_of_batch(batch, self.num_classes))).mean()
        return Loss(value, {"code_square": code.detach().square().mean()})

    def sample(self, n: int, given: Example) -> Example:
        """`n` images in [0, 1] from codes of the prior, of the class where it has modes."""
        noise = torch.randn(n, self.latent_dim, dtype=next(self.parameters()).dtype)
        return self.decode(self._of_prior(noise, labels_of(given, self.num_classes)), given)

    def encode(self, x: Example) -> Tensor:
        """Codes, [batch, latent_dim], together near the prior; they need no class."""
        return self.encoder(2 * x["images"] - 1)

    def decode(self, z: Tensor, given: Example) -> Example:
        """Images in [0, 1], [batch, channels, height, width]."""
        labels = labels_of(given, self.num_classes) if self.is_conditional else None
        return {"images": (self._decoded(z, labels) + 1) / 2}

    def _under_class(self, network: nn.Module) -> nn.Module:
        return UnderClass(network, self.num_classes, self.latent_dim) if self.num_classes else network

    def _decoded(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.decoder(z, labels) if self.is_conditional else self.decoder(z)

    def _scores(self, code: Tensor, labels: Tensor | None) -> Tensor:
        return self.critic(code) if labels is None else self.critic(code, labels)

    def _of_prior(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Codes of the prior, [batch, latent_dim], as a function of standard noise and of the class."""
        if not self.has_modes or labels is None:
            return noise
        return torch.cat([self.centres[labels] + self.deviation * noise[:, :2], noise[:, 2:]], 1)

    def _scaled(self, batch: Batch) -> Tensor:
        return 2 * scaled(batch["images"], next(self.parameters()).dtype) - 1
