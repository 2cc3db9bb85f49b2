"""O-GAN: Orthogonal Generative Adversarial Networks (Su, 2019, arXiv:1903.01931; archives/6409).

One loss over both networks, the gradients stopped inside it. The discriminator is the encoder: the mean of its output
is the critic, the orthogonal rest is the code. The critic is a score: high means real (the article has low).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Encodes, Example, Samples
from genpipe.errors import BadInput
from genpipe.nn.conv import ConvEncoder, ConvGenerator
from genpipe.nn.pixels import scaled
from genpipe.params.blocks import Count, Factor
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


def normalise(z: Tensor) -> Tensor:
    """z with mean 0 and (population) standard deviation 1 in each row."""
    return F.layer_norm(z, z.shape[-1:], eps=1e-8)


def correlation(z: Tensor, code: Tensor) -> Tensor:
    """Pearson correlation of each row, [batch]; moves with neither the mean nor the scale of its arguments."""
    return (normalise(z) * normalise(code)).mean(-1)


class OGAN(Recipe, Samples, Encodes, Decodes):
    """A GAN whose discriminator encodes."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: Count = 32,
        width: Count = 32,
        correlation_weight: Factor = 0.5,
    ) -> None:
        super().__init__()
        if latent_dim < 3:
            raise BadInput(f"latent_dim: must be 3 or more (with 2 the correlation is ±1), not {latent_dim}")
        self.latent_dim = latent_dim
        self.correlation_weight = correlation_weight
        self.encoder = ConvEncoder(image_shape, width, latent_dim)
        self.generator = ConvGenerator(image_shape, width, latent_dim)

    def phases(self) -> tuple[Phase, ...]:
        """One update over both networks."""
        return (Phase("adversarial", (Update("ogan", self.single_loss, (self.encoder, self.generator)),)),)

    def single_loss(self, batch: Batch) -> Loss:
        """The critic's quadratic-potential loss, the generator's loss (value 0), and the shared correlation."""
        real = 2 * scaled(batch["images"], next(self.parameters()).dtype) - 1
        z = torch.randn(len(real), self.latent_dim, dtype=real.dtype, device=real.device)
        fake = self.generator(z)
        # One pass over three batches. The second is the critic's turn: nothing flows to the generator.
        code_real, code_stopped, code = self.encoder(torch.cat([real, fake.detach(), fake])).chunk(3)
        gap = code_real.mean(1) - code_stopped.mean(1)
        generator_turn = code.mean(1) - code_stopped.mean(1)  # value 0; the encoder's gradients cancel
        distance = (real - fake.detach()).square().flatten(1).mean(1)
        potential = gap.square() / (4 * distance)
        rho = correlation(z, code)
        value = (potential - gap - generator_turn - self.correlation_weight * rho).mean()
        metrics = {"score_gap": gap.mean(), "correlation": rho.mean()}
        return Loss(value, {name: metric.detach() for name, metric in metrics.items()})

    def sample(self, n: int, given: Example) -> Example:
        """`n` images in [0, 1] from Gaussian codes."""
        return self.decode(torch.randn(n, self.latent_dim), given)

    def encode(self, x: Example) -> Tensor:
        """Standardised codes, [batch, latent_dim]."""
        return normalise(self.encoder(2 * x["images"] - 1))

    def decode(self, z: Tensor, given: Example) -> Example:
        """Images in [0, 1], [batch, channels, height, width]."""
        return {"images": (self.generator(z) + 1) / 2}
