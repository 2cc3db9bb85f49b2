"""AAE: Adversarial Autoencoders (Makhzani et al., 2015, arXiv:1511.05644; archives/5716).

An autoencoder whose codes a critic cannot tell from Gaussian noise, so that noise decodes to new images. The weight of the
reconstruction against the critic is the ratio of two learning rates: the encoder has an optimiser for each.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Encodes, Example, Samples
from genpipe.nn.conv import ConvEncoder, ConvGenerator
from genpipe.nn.pixels import scaled
from genpipe.params.blocks import Count
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class AAE(Recipe, Samples, Encodes, Decodes):
    """Encoder and decoder against the error of reconstruction; encoder against a critic of codes."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: Count = 8,
        width: Count = 32,
        hidden_dim: Count = 256,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = ConvEncoder(image_shape, width, latent_dim)
        self.decoder = ConvGenerator(image_shape, width, latent_dim)
        self.critic = nn.Sequential(  # score of a code: the log-odds that it is noise and not of an image
            nn.Linear(latent_dim, hidden_dim),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden_dim, hidden_dim),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden_dim, 1),
            nn.Flatten(0),
        )

    def phases(self) -> tuple[Phase, ...]:
        """Three updates; the encoder moves in two of them, each with an optimiser of its own."""
        reconstruct = Update("reconstruct", self.reconstruction_error, (self.encoder, self.decoder))
        critic = Update("critic", self.critic_loss, (self.critic,))
        match = Update("match", self.match_loss, (self.encoder,))
        return (Phase("adversarial", (reconstruct, critic, match)),)

    def reconstruction_error(self, batch: Batch) -> Loss:
        """Mean squared difference of pixels in [−1, 1]."""
        x = self._scaled(batch)
        return Loss(F.mse_loss(self.decoder(self.encoder(x)), x))

    def critic_loss(self, batch: Batch) -> Loss:
        """Cross entropy in nats of telling noise from codes, ln 4 where the critic cannot distinguish them."""
        with torch.no_grad():  # the critic's turn: nothing flows to the encoder
            code = self.encoder(self._scaled(batch))
        score_noise, score_code = self.critic(torch.cat([torch.randn_like(code), code])).chunk(2)
        value = F.softplus(-score_noise).mean() + F.softplus(score_code).mean()
        return Loss(value, {"score_gap": (score_noise - score_code).mean().detach()})

    def match_loss(self, batch: Batch) -> Loss:
        """Cross entropy in nats of passing codes off as noise; `code_square` is the mean square of a code, 1 for noise."""
        code = self.encoder(self._scaled(batch))
        value = F.softplus(-self.critic(code)).mean()
        return Loss(value, {"code_square": code.detach().square().mean()})

    def sample(self, n: int, given: Example) -> Example:
        """`n` images in [0, 1] from Gaussian codes."""
        return self.decode(torch.randn(n, self.latent_dim), given)

    def encode(self, x: Example) -> Tensor:
        """Codes, [batch, latent_dim], together near a standard Gaussian."""
        return self.encoder(2 * x["images"] - 1)

    def decode(self, z: Tensor, given: Example) -> Example:
        """Images in [0, 1], [batch, channels, height, width]."""
        return {"images": (self.decoder(z) + 1) / 2}

    def _scaled(self, batch: Batch) -> Tensor:
        return 2 * scaled(batch["images"], next(self.parameters()).dtype) - 1
