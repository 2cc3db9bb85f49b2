"""Adversarial training in all its forms: a critic that tells real examples from generated ones, and a generator that follows it.

The divergence, the penalty on slopes, the schedule and the networks have names; sources and formulas stand where these are
written: genpipe/nn/divergences.py, penalties.py and networks.py. Scores are high for real examples.

Blocks of params.yaml with a name of their own: `wgan_gp`, Improved Training of Wasserstein GANs (Gulrajani et al., 2017,
arXiv:1704.00028); the single loss, archives/6387; the penalty on steps of the generator, Variational Inference: A Unified
Framework of Generative Models (Su, 2018, arXiv:1807.05936; archives/5716).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from genpipe.capabilities import Decodes, Example, Samples, Scores
from genpipe.errors import BadInput
from genpipe.nn.classes import condition_classes, labels_of, labels_of_batch
from genpipe.nn.divergences import POTENTIAL_SCALE
from genpipe.nn.divergences import divergence as divergence_of
from genpipe.nn.examples import examples_of
from genpipe.nn.networks import Architecture, Critic, Generator
from genpipe.nn.penalties import penalty as penalty_of
from genpipe.nn.penalties import slopes
from genpipe.nn.snapshot import Snapshot
from genpipe.params.blocks import Count, DecayRate, Factor, Positive
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class GAN(Recipe, Samples, Decodes, Scores):
    """A critic and a generator."""

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        dim: int | None = None,
        num_classes: int | None = None,
        conditional: bool = False,
        architecture: Architecture = "dcgan",
        latent_dim: Count = 32,
        width: Count = 32,
        feature_dim: Count = 64,
        dropout: DecayRate = 0.0,
        divergence: str = "sgan",
        potential_scale: Positive | None = None,
        penalty: str = "none",
        penalty_weight: Factor | None = None,
        old_weight: Factor = 0.0,
        schedule: Literal["alternating", "single"] = "alternating",
        critic_steps: Count = 1,
        generator_steps: Count = 1,
    ) -> None:
        """`critic_steps` : `generator_steps` is how often each moves; `None` stands for the value of the source."""
        super().__init__()
        self.divergence, self.penalty = divergence_of(divergence), penalty_of(penalty)
        if self.penalty is None and penalty_weight is not None:
            raise BadInput("penalty_weight has no effect with penalty none; take it out, or name a penalty")
        if self.divergence.distance is None and potential_scale is not None:
            raise BadInput(f"potential_scale has no effect on {divergence}; take it out, or take gan_qp_l1")
        _refuse_schedule(schedule, critic_steps, generator_steps, dropout, old_weight)
        self.potential_scale = POTENTIAL_SCALE if potential_scale is None else potential_scale
        source = self.penalty.weight if self.penalty else 0.0
        self.penalty_weight = source if penalty_weight is None else penalty_weight
        self.latent_dim = latent_dim
        self.is_single = schedule == "single"
        self.critic_steps, self.generator_steps = critic_steps, generator_steps
        self.examples = examples_of(image_shape, dim)
        self.num_classes = condition_classes(conditional, num_classes)
        self.given = ("labels",) if self.num_classes else ()
        shape = self.examples.shape
        self.critic = Critic(architecture, shape, width, feature_dim, self.num_classes, dropout)
        self.generator = Generator(architecture, shape, latent_dim, width, self.num_classes)
        self.old_weight = old_weight
        self.old = Snapshot(self.generator) if old_weight else None

    def phases(self) -> tuple[Phase, ...]:
        """Two players in turn, or one loss over both."""
        if self.old is not None:
            self.old.refuse_other_names(self.generator)
        if self.is_single:
            both = Update("gan", self.single_loss, (self.critic, self.generator))
            return (Phase("adversarial", (both,)),)
        critic = Update(
            "critic", self.critic_loss, (self.critic,), every=self.generator_steps, after=self._remember
        )
        generator = Update("generator", self.generator_loss, (self.generator,), every=self.critic_steps)
        return (Phase("adversarial", (critic, generator)),)

    @parametrize.cached()  # normalised weights once: the slopes are those of the critic that gave the scores
    def critic_loss(self, batch: Batch) -> Loss:
        """The divergence, with generated examples as they are, plus the weighted penalty."""
        real, labels = self._real(batch)
        fake = self._made(real, labels).detach()  # the critic's turn: nothing flows to the generator
        score_real, score_fake = self._scores(torch.cat([real, fake]), labels).chunk(2)
        return self._critic_loss(score_real, score_fake, real, fake, labels)

    def generator_loss(self, batch: Batch) -> Loss:
        """What the generator minimises of the scores, plus the weighted distance to what it made before the critic moved."""
        real, labels = self._real(batch)
        z = self._codes(real)
        fake = self._generated(z, labels)
        score_fake = self._scores(fake, labels)
        if self.divergence.of_pairs:
            with torch.no_grad():  # no real score depends on the generator
                score_real = self._scores(real, labels)
        else:
            score_real = score_fake
        value = self.divergence.generator(score_real, score_fake).mean()
        if self.old is None:
            return Loss(value)
        moved = (fake - self.old.call(self.generator, z, labels)).square().mean()
        return Loss(value + self.old_weight * moved, {"moved": moved.detach()})

    @parametrize.cached()  # else each pass is one more power iteration, and the players see two critics
    def single_loss(self, batch: Batch) -> Loss:
        """The critic's loss, and a term of value 0 whose gradient is that of the generator's loss, by the generator alone.

        The generator's gradient at the examples comes from the critic's own pass, so no third pass is needed.
        """
        real, labels = self._real(batch)
        fake = self._made(real, labels)
        cut = fake.detach().requires_grad_()
        score_real, score_fake = self._scores(real, labels), self._scores(cut, labels)
        mine = self.divergence.generator(score_real.detach(), score_fake).mean()
        (slope,) = torch.autograd.grad(mine, cut, retain_graph=True)
        turn = ((fake - fake.detach()) * slope).sum()
        loss = self._critic_loss(score_real, score_fake, real, cut.detach(), labels)
        return Loss(loss.value + turn, {**loss.metrics, "generator": mine.detach()})

    def sample(self, n: int, given: Example) -> Example:
        """`n` images in [0, 1], or points, from Gaussian codes."""
        return self.decode(torch.randn(n, self.latent_dim), given)

    def score(self, x: Example) -> Tensor:
        """Scores, [batch], high where the critic takes examples for real."""
        return self._scores(self.examples.of_values(x), labels_of(x, self.num_classes))

    def decode(self, z: Tensor, given: Example) -> Example:
        """Images in [0, 1], [batch, channels, height, width], or points, [batch, dim]."""
        return self.examples.as_values(self._generated(z, labels_of(given, self.num_classes)))

    def _critic_loss(
        self, score_real: Tensor, score_fake: Tensor, real: Tensor, fake: Tensor, labels: Tensor | None
    ) -> Loss:
        gap = (score_real - score_fake).mean()
        value = self.divergence.critic_loss(score_real, score_fake, real, fake, self.potential_scale).mean()
        metrics = {"score_gap": gap.detach()}
        if self.penalty is None:
            return Loss(value, metrics)
        slope = slopes(lambda x: self._scores(x, labels), self.penalty.points(real, fake))
        metrics["slope"] = slope.mean().detach()
        return Loss(self.penalty_weight * self.penalty.cost(slope).mean() + value, metrics)

    def _real(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        real = self.examples.of_batch(batch, next(self.parameters()).dtype)
        return real, labels_of_batch(batch, self.num_classes)

    def _scores(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[rows] of examples whose classes are `labels`, again and again where there are more examples."""
        if labels is not None:
            labels = labels.repeat(len(x) // len(labels))
        return self.critic(x, labels)

    def _codes(self, real: Tensor) -> Tensor:
        return torch.randn(len(real), self.latent_dim, dtype=real.dtype, device=real.device)

    def _made(self, real: Tensor, labels: Tensor | None) -> Tensor:
        return self._generated(self._codes(real), labels)

    def _generated(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.generator(z, labels)

    def _remember(self) -> None:
        if self.old is not None:
            self.old.take(self.generator)


def _refuse_schedule(
    schedule: str, critic_steps: int, generator_steps: int, dropout: float, old_weight: float
) -> None:
    """BadInput for players that cannot take turns so."""
    if min(critic_steps, generator_steps) > 1:
        raise BadInput(
            f"critic_steps, generator_steps: one of them must be 1, not {critic_steps} and {generator_steps}"
        )
    if schedule == "single" and max(critic_steps, generator_steps) > 1:
        raise BadInput(
            "schedule: with the single loss both players move at once; set critic_steps and generator_steps to 1, or take "
            "alternating"
        )
    if schedule == "single" and dropout:
        raise BadInput(
            "dropout: with the single loss both players see one draw of the critic, and separate losses would not; set it "
            "to 0, or take the schedule alternating"
        )
    if old_weight and generator_steps == 1:
        raise BadInput(
            "old_weight has no effect where the generator moves once after each move of the critic: it has not moved since; "
            "set generator_steps to 2 or more"
        )
