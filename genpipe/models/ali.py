"""ALI, which is BiGAN: a critic of pairs of an example and a code teaches an encoder and a generator to invert each other.

Dumoulin et al., Adversarially Learned Inference, 2016, arXiv:1606.00704; Donahue, Krähenbühl, Darrell, Adversarial Feature
Learning, 2016, arXiv:1605.09782; the derived form: Su, 2018, archives/5716; without a logarithm: BiGAN-QP, Su, 2018,
arXiv:1811.07296. Scores are high for real pairs, an example and the code that the encoder finds; a made pair is a code of the
prior and the example that the generator makes of it.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Encodes, Example, Samples
from genpipe.errors import BadInput
from genpipe.nn import variational
from genpipe.nn.classes import condition_classes, labels_of, labels_of_batch
from genpipe.nn.divergences import POTENTIAL_SCALE, potential
from genpipe.nn.examples import examples_of
from genpipe.nn.networks import SLOPE, Architecture, Encoder, Generator, Shape, features, perceptron
from genpipe.params.blocks import Count, DecayRate, Factor
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update

Form = Literal["label_swap", "derived", "saturating", "qp"]


def critic_value(real: Tensor, made: Tensor) -> Tensor:
    """−ln σ(real) − ln(1 − σ(made)) of scores, [batch]: the mean cross entropy of telling the pairs apart, ln 4 at scores of 0."""
    return (F.softplus(-real) + F.softplus(made)).mean()


def players_value(form: Form, real: Tensor, made: Tensor) -> Tensor:
    """What encoder and generator minimise, of scores, [batch].

    `label_swap`: −ln(1 − σ(real)) − ln σ(made), the critic's with the labels swapped. `derived`: −ln σ(real) − ln σ(made), in
    which the encoder helps the critic. `saturating`: minus the critic's. `qp`: real − made, without the quadratic term.
    """
    if form == "label_swap":
        return (F.softplus(real) + F.softplus(-made)).mean()
    if form == "derived":
        return (F.softplus(-real) + F.softplus(-made)).mean()
    return -critic_value(real, made) if form == "saturating" else (real - made).mean()


class Pairs(NamedTuple):
    """Real pairs and made pairs: examples, [batch, *shape], images in [−1, 1], codes, [batch, latent_dim], and their classes."""

    x: Tensor
    code: Tensor
    made: Tensor
    z: Tensor
    labels: Tensor | None

    def distance(self) -> Tensor:
        """Mean absolute difference of the examples plus that of the codes, [batch]."""
        apart = (self.x - self.made).flatten(1).abs().mean(1)
        return apart + (self.code - self.z).abs().mean(1)


class PairCritic(nn.Module):
    """Examples, [batch, *shape], codes, [batch, latent_dim], and classes, int64 [batch] → scores, [batch].

    The last layer has no bias: the gap of two scores cancels it.
    """

    def __init__(
        self,
        architecture: Architecture,
        shape: Shape,
        latent_dim: int,
        width: int,
        feature_dim: int,
        num_classes: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.of_example = features(architecture, shape, width, feature_dim)
        self.of_code = perceptron(latent_dim, feature_dim, feature_dim)
        self.classes = nn.Embedding(num_classes, feature_dim) if num_classes else None
        self.both = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            nn.Dropout(dropout),
            nn.Linear(2 * feature_dim, feature_dim),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(dropout),
            nn.Linear(feature_dim, 1, bias=False),
            nn.Flatten(0),
        )

    def forward(self, x: Tensor, z: Tensor, labels: Tensor | None) -> Tensor:
        """[batch, *shape], [batch, latent_dim] and, where there are classes, int64 [batch] → [batch]."""
        code = self.of_code(z)
        if self.classes is not None:
            code = code + self.classes(labels)
        return self.both(torch.cat([self.of_example(x), code.to(x)], 1))


class ALI(Recipe, Samples, Encodes, Decodes):
    """A critic of pairs against an encoder and a generator, of images or of points, under the condition of a class if asked."""

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        dim: int | None = None,
        num_classes: int | None = None,
        form: Form = "label_swap",
        encoder: Literal["gaussian", "point"] = "gaussian",
        conditional: bool = False,
        architecture: Architecture = "dcgan",
        latent_dim: Count = 32,
        width: Count = 32,
        feature_dim: Count = 128,
        dropout: DecayRate = 0.2,
        critic_steps: Count = 1,
        scale: Factor | None = None,
        code_weight: Factor = 0.0,
        example_weight: Factor = 0.0,
    ) -> None:
        """`scale` is of the form `qp`; `None` stands for 10, that of the source."""
        super().__init__()
        if scale is not None and form != "qp":
            raise BadInput(f"train.network.scale has no effect on the form {form}; take it out, or take qp")
        self.examples = examples_of(image_shape, dim)
        shape = self.examples.shape
        self.form: Form = form
        self.is_stochastic = encoder == "gaussian"
        self.latent_dim, self.critic_steps = latent_dim, critic_steps
        self.scale = POTENTIAL_SCALE if scale is None else scale
        self.code_weight, self.example_weight = code_weight, example_weight
        self.num_classes = condition_classes(conditional, num_classes)
        self.given = ("labels",) if conditional else ()
        classes, out_dim = self.num_classes, 2 * latent_dim if self.is_stochastic else latent_dim
        self.encoder = Encoder(architecture, shape, width, feature_dim, out_dim, classes)
        self.generator = Generator(architecture, shape, latent_dim, width, classes)
        self.critic = PairCritic(architecture, shape, latent_dim, width, feature_dim, classes, dropout)

    def phases(self) -> tuple[Phase, ...]:
        """Two players in turn: the critic, and encoder and generator together."""
        critic = Update("critic", self.critic_loss, (self.critic,))
        players = Update(
            "players", self.players_loss, (self.encoder, self.generator), every=self.critic_steps
        )
        return (Phase("adversarial", (critic, players)),)

    def critic_loss(self, batch: Batch) -> Loss:
        """The critic's cross entropy in nats, or its negative potential (`qp`)."""
        with torch.no_grad():  # the critic's turn: nothing flows to encoder and generator
            pairs = self._pairs(batch)
        real, made = self._scores(pairs)
        gap = real - made
        metrics = {"score_gap": gap.mean().detach()}
        if self.form != "qp":
            return Loss(critic_value(real, made), metrics)
        return Loss((potential(gap, self.scale * pairs.distance()) - gap).mean(), metrics)

    def players_loss(self, batch: Batch) -> Loss:
        """What encoder and generator minimise, and how well each inverts the other where that is weighed."""
        pairs = self._pairs(batch)
        value = players_value(self.form, *self._scores(pairs))
        metrics = {"code_square": pairs.code.square().mean()}
        if self.code_weight:  # moves the encoder only
            again = self._code(pairs.made.detach(), pairs.labels)[0]
            metrics["code_error"] = (again - pairs.z).square().mean()
            value = value + self.code_weight * metrics["code_error"]
        if self.example_weight:  # moves the generator only
            again = self.generator(pairs.code.detach(), pairs.labels)
            metrics["example_error"] = (again - pairs.x).square().mean()
            value = value + self.example_weight * metrics["example_error"]
        return Loss(value, {name: metric.detach() for name, metric in metrics.items()})

    def sample(self, n: int, given: Example) -> Example:
        """`n` examples of Gaussian codes; images in [0, 1]."""
        return self.decode(variational.standard(n, self.latent_dim, next(self.parameters())), given)

    def encode(self, x: Example) -> Tensor:
        """Codes, [n, latent_dim]: of a Gaussian encoder their means."""
        return self._code(self.examples.of_values(x), labels_of(x, self.num_classes))[0]

    def decode(self, z: Tensor, given: Example) -> Example:
        """Examples of codes, [n, latent_dim]; images in [0, 1]."""
        return self.examples.as_values(self.generator(z, labels_of(given, self.num_classes)))

    def _pairs(self, batch: Batch) -> Pairs:
        x = self.examples.of_batch(batch, next(self.parameters()).dtype)
        labels = labels_of_batch(batch, self.num_classes)
        mean, log_var = self._code(x, labels)
        z, noise = (variational.standard(len(x), self.latent_dim, x) for _ in range(2))
        code = mean if log_var is None else variational.moved(mean, log_var, noise)
        return Pairs(x, code, self.generator(z, labels), z, labels)

    def _code(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Means of codes, and their log-variances where the encoder is Gaussian, [batch, latent_dim] each."""
        found = self.encoder(x, labels)
        if not self.is_stochastic:
            return found, None
        mean, log_var = found.chunk(2, 1)
        return mean, log_var

    def _scores(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Scores of real pairs and of made ones, [batch] each."""
        x, z = torch.cat([pairs.x, pairs.made.to(pairs.x)]), torch.cat([pairs.code.to(pairs.z), pairs.z])
        labels = None if pairs.labels is None else pairs.labels.repeat(2)
        real, made = self.critic(x, z, labels).chunk(2)
        return real, made
