"""WGAN-GP: a Wasserstein GAN whose critic's slope is held near 1 (Gulrajani et al., 2017, arXiv:1704.00028; archives/6280).

The penalty takes one point between each real image and a fake, and the norm of the gradient over all its pixels.
Scores are high for real images.
"""

import torch
from torch import Tensor, nn

from genpipe.capabilities import Decodes, Example, Samples
from genpipe.nn.conv import ConvEncoder, ConvGenerator
from genpipe.nn.pixels import scaled
from genpipe.params.blocks import Count, Factor
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


def slopes(critic: nn.Module, x: Tensor) -> Tensor:
    """Euclidean norm of the gradient of each score by its own example, over all dimensions but the first, [batch].

    `critic` must not normalise over the batch: a score would then have gradients by other examples too.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


def between(real: Tensor, fake: Tensor) -> Tensor:
    """A uniform point on the segment from each real image to its fake, [batch, channels, height, width]."""
    # one weight an image, not one a pixel
    weight = torch.rand(len(real), 1, 1, 1, dtype=real.dtype, device=real.device)
    return torch.lerp(real, fake.to(real), weight)


class WGANGP(Recipe, Samples, Decodes):
    """A critic that moves every step, and a generator that moves every `critic_steps`-th."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: Count = 32,
        width: Count = 32,
        feature_dim: Count = 64,
        critic_steps: Count = 5,
        penalty_weight: Factor = 10.0,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.critic_steps = critic_steps
        self.penalty_weight = penalty_weight
        self.critic = nn.Sequential(
            ConvEncoder(image_shape, width, feature_dim),
            nn.LeakyReLU(0.2),
            nn.Linear(feature_dim, 1, bias=False),  # fake − real cancels a bias: it could not be trained
            nn.Flatten(0),
        )
        self.generator = ConvGenerator(image_shape, width, latent_dim)

    def phases(self) -> tuple[Phase, ...]:
        """Two players in turn."""
        critic = Update("critic", self.critic_loss, (self.critic,))
        generator = Update("generator", self.generator_loss, (self.generator,), every=self.critic_steps)
        return (Phase("adversarial", (critic, generator)),)

    def critic_loss(self, batch: Batch) -> Loss:
        """Mean score of fakes minus that of real images, plus the weighted penalty (slope − 1)²."""
        real = 2 * scaled(batch["images"], next(self.parameters()).dtype) - 1
        fake = self._made(len(real)).detach()  # the critic's turn: nothing flows to the generator
        score_real, score_fake = self.critic(torch.cat([real, fake])).chunk(2)
        gap = (score_real - score_fake).mean()
        slope = slopes(self.critic, between(real, fake))
        penalty = (slope - 1).square().mean()
        metrics = {"score_gap": gap.detach(), "slope": slope.mean().detach()}
        return Loss(self.penalty_weight * penalty - gap, metrics)

    def generator_loss(self, batch: Batch) -> Loss:
        """Minus the mean score of fakes."""
        return Loss(-self.critic(self._made(len(batch["images"]))).mean())

    def sample(self, n: int, given: Example) -> Example:
        """`n` images in [0, 1] from Gaussian codes."""
        return self.decode(torch.randn(n, self.latent_dim), given)

    def decode(self, z: Tensor, given: Example) -> Example:
        """Images in [0, 1], [batch, channels, height, width]."""
        return {"images": (self.generator(z) + 1) / 2}

    def _made(self, n: int) -> Tensor:
        parameter = next(self.parameters())
        return self.generator(torch.randn(n, self.latent_dim, dtype=parameter.dtype, device=parameter.device))
