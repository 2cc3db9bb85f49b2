"""O-GAN: Extremely Concise Approach for Auto-Encoding Generative Adversarial Networks (Su, 2019, arXiv:1903.01931; archives/6409).

One loss over both networks, the gradients stopped inside it. The discriminator is the encoder: the mean of its output
is the critic, the orthogonal rest is the code. The critic is a score: high means real (the article has low). Conditional by
class as an extension of our own: the article has no classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Encodes, Example, Samples, Scores
from genpipe.errors import BadInput
from genpipe.nn.classes import condition_classes, labels_of, labels_of_batch
from genpipe.nn.examples import examples_of
from genpipe.nn.networks import Architecture, Generator, features
from genpipe.params.blocks import Count, Factor
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update

LEAST_DISTANCE = 1e-8  # of a pair: a generated example may be a copy of its real one


def normalise(z: Tensor) -> Tensor:
    """z with mean 0 and (population) standard deviation 1 in each row."""
    return F.layer_norm(z, z.shape[-1:], eps=1e-8)


def correlation(z: Tensor, code: Tensor) -> Tensor:
    """Pearson correlation of each row, [batch]; moves with neither the mean nor the scale of its arguments."""
    return (normalise(z) * normalise(code)).mean(-1)


class OGAN(Recipe, Samples, Encodes, Decodes, Scores):
    """A GAN whose discriminator encodes."""

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        dim: int | None = None,
        num_classes: int | None = None,
        latent_dim: Count = 32,
        width: Count = 32,
        correlation_weight: Factor = 0.5,
        potential_weight: Factor = 0.25,
        architecture: Architecture = "dcgan",
        conditional: bool = False,
    ) -> None:
        super().__init__()
        if latent_dim < 3:
            raise BadInput(f"latent_dim: must be 3 or more (with 2 the correlation is ±1), not {latent_dim}")
        self.latent_dim = latent_dim
        self.correlation_weight = correlation_weight
        self.potential_weight = potential_weight
        self.examples = examples_of(image_shape, dim)
        classes = condition_classes(conditional, num_classes) or 0
        self.num_classes = classes or None
        self.given = ("labels",) if classes else ()
        # beside the code, the encoder puts out a score for each class, whatever the class of the image is
        self.encoder = features(architecture, self.examples.shape, width, latent_dim + classes)
        generator = Generator(architecture, self.examples.shape, latent_dim, width, self.num_classes)
        self.generator = generator if classes else generator.layers

    def phases(self) -> tuple[Phase, ...]:
        """One update over both networks."""
        return (Phase("adversarial", (Update("ogan", self.single_loss, (self.encoder, self.generator)),)),)

    def single_loss(self, batch: Batch) -> Loss:
        """The critic's quadratic-potential loss, the generator's loss (value 0), and the shared correlation."""
        real = self.examples.of_batch(batch, next(self.parameters()).dtype)
        z = torch.randn(len(real), self.latent_dim, dtype=real.dtype, device=real.device)
        labels = labels_of_batch(batch, self.num_classes)
        fake = self._generated(z, labels)
        # One pass over three batches. The second is the critic's turn: nothing flows to the generator.
        parts = self.encoder(torch.cat([real, fake.detach(), fake])).chunk(3)
        score_real, score_stopped, score = (self._scores(part, labels) for part in parts)
        gap = score_real - score_stopped
        generator_turn = score - score_stopped  # value 0; the encoder's gradients cancel
        distance = (real - fake.detach()).square().flatten(1).mean(1)
        potential = self.potential_weight * gap.square() / distance.clamp(min=LEAST_DISTANCE)
        rho = correlation(z, parts[2][:, : self.latent_dim])
        value = (potential - gap - generator_turn - self.correlation_weight * rho).mean()
        metrics = {"score_gap": gap.mean(), "correlation": rho.mean()}
        return Loss(value, {name: metric.detach() for name, metric in metrics.items()})

    def sample(self, n: int, given: Example) -> Example:
        """`n` images in [0, 1], or points, from Gaussian codes."""
        return self.decode(torch.randn(n, self.latent_dim), given)

    def encode(self, x: Example) -> Tensor:
        """Standardised codes, [batch, latent_dim]; they do not depend on the class that an example is given with."""
        return normalise(self.encoder(self.examples.of_values(x))[:, : self.latent_dim])

    def score(self, x: Example) -> Tensor:
        """Scores, [batch], high where the critic takes examples for real."""
        return self._scores(self.encoder(self.examples.of_values(x)), labels_of(x, self.num_classes))

    def decode(self, z: Tensor, given: Example) -> Example:
        """Images in [0, 1], [batch, channels, height, width], or points, [batch, dim]."""
        return self.examples.as_values(self._generated(z, labels_of(given, self.num_classes)))

    def _generated(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.generator(z) if labels is None else self.generator(z, labels)

    def _scores(self, outputs: Tensor, labels: Tensor | None) -> Tensor:
        """[batch]: the mean of the code, and with classes the output for the class of the example.

        A score for each class is a projection on the features before the last layer (Miyato & Koyama, 2018); ρ does not
        touch it, as it does not touch the mean.
        """
        score = outputs[:, : self.latent_dim].mean(1)
        if labels is None:
            return score
        return score + outputs[:, self.latent_dim :].gather(1, labels.unsqueeze(1)).squeeze(1)
