"""Energy GAN: an energy and a generator that samples from it with as much entropy as it can have.

Kumar, Ozair, Goyal, Courville, Bengio, *Maximum Entropy Generators for Energy-Based Models*, 2019, arXiv:1901.08508;
archives/6316, archives/6331. The energy goes down at real examples and up at generated ones, with a penalty on its slope at real
ones. The generator goes down in energy, and a second network reads its codes from what it makes: as much as it can read,
so much entropy is kept. An energy is minus a score: low for likely examples.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from genpipe.capabilities import Decodes, Energy, Example, Samples
from genpipe.errors import BadInput
from genpipe.nn import chains
from genpipe.nn.examples import examples_of
from genpipe.nn.information import code_loss, information_of_codes, information_of_pairs, pairs_loss
from genpipe.nn.networks import Architecture, Critic, Encoder, Generator, Shape, features, perceptron
from genpipe.params.blocks import Count, Factor, Positive
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update

Entropy = Literal["jsd", "infogan", "none"]  # how the codes are read
Chain = Literal["langevin", "mala"]


def squared_slopes(energies: Tensor, x: Tensor) -> Tensor:
    """‖∇ₓU‖² at each example over all its dimensions, [batch]; `energies` were computed from `x`, a row of each alone."""
    (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(1)


class PairScore(nn.Module):
    """Log-odds, [batch], that an example was made from a code and not from another one."""

    def __init__(
        self, architecture: Architecture, shape: Shape, latent_dim: int, width: int, feature_dim: int
    ) -> None:
        super().__init__()
        self.features = features(architecture, shape, width, feature_dim)
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2), perceptron(feature_dim + latent_dim, feature_dim, 1), nn.Flatten(0)
        )

    def forward(self, x: Tensor, *codes: Tensor) -> list[Tensor]:
        """[batch, *shape], and some times [batch, latent_dim] → as many times [batch]; the features of x are computed once."""
        found = self.features(x)
        return [self.layers(torch.cat([found, z], 1)) for z in codes]


class EnergyGAN(Recipe, Samples, Energy, Decodes):
    """An energy that moves every step, and a generator with its reader that move every `energy_steps`-th."""

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        dim: int | None = None,
        latent_dim: Count = 32,
        width: Count = 32,
        feature_dim: Count = 64,
        architecture: Architecture = "dcgan",
        energy_steps: Count = 5,
        penalty_weight: Factor = 0.1,
        entropy: Entropy = "jsd",
        entropy_weight: Factor | None = None,
    ) -> None:
        """`entropy_weight` is 1 where nothing else is said."""
        super().__init__()
        if entropy == "none" and entropy_weight is not None:
            raise BadInput(
                "train.network.entropy_weight has no effect with entropy none; take it out, or take jsd"
            )
        self.latent_dim = latent_dim
        self.energy_steps = energy_steps
        self.penalty_weight = penalty_weight
        self.entropy: Entropy = entropy
        self.entropy_weight = 1.0 if entropy_weight is None else entropy_weight
        self.examples = examples_of(image_shape, dim)
        shape = self.examples.shape
        self.scorer = Critic(architecture, shape, width, feature_dim)
        self.generator = Generator(architecture, shape, latent_dim, width)
        if entropy == "jsd":
            self.reader = PairScore(architecture, shape, latent_dim, width, feature_dim)
        elif entropy == "infogan":
            self.reader = Encoder(architecture, shape, width, feature_dim, latent_dim)

    def phases(self) -> tuple[Phase, ...]:
        """Energy and generator in turn."""
        readers = () if self.entropy == "none" else (self.reader,)
        energy = Update("energy", self.energy_loss, (self.scorer,))
        generator = Update(
            "generator", self.generator_loss, (self.generator, *readers), every=self.energy_steps
        )
        return (Phase("adversarial", (energy, generator)),)

    def energy_loss(self, batch: Batch) -> Loss:
        """Mean energy of real examples minus that of generated ones, plus the weighted square of the slope at real ones."""
        real = self.examples.of_batch(batch, next(self.parameters()).dtype).detach().requires_grad_()
        with torch.no_grad():  # the turn of the energy: nothing flows to the generator
            made = self.generator(self._codes(len(real)))
        energy_real, energy_made = self._energy(torch.cat([real, made])).chunk(2)
        gap = (energy_made - energy_real).mean()
        penalty = squared_slopes(energy_real, real).mean()
        metrics = {"energy_gap": gap.detach(), "squared_slope": penalty.detach()}
        return Loss(self.penalty_weight * penalty - gap, metrics)

    def generator_loss(self, batch: Batch) -> Loss:
        """Mean energy of generated examples, plus the weighted loss of reading their codes."""
        z = self._codes(len(batch[self.examples.key]))
        made = self.generator(z)
        energy = self._energy(made).mean()
        if self.entropy == "none":
            return Loss(energy)
        loss, information = self._read(z, made)
        metrics = {"energy_made": energy.detach(), "information": information.detach()}
        return Loss(energy + self.entropy_weight * loss, metrics)

    def energy(self, x: Example) -> Tensor:
        """Energies, [batch]: low where examples are likely, and fixed but for a constant."""
        return self._energy(self.examples.of_values(x))

    def sample(
        self,
        n: int,
        given: Example,
        chain: Literal["none", "langevin", "mala"] = "none",
        steps: Count | None = None,
        step: Positive | None = None,
        with_prior: bool | None = None,
    ) -> Example:
        """`n` images in [0, 1], or points, from Gaussian codes, or from the ends of chains of `steps` that start there.

        The chains follow `latent_energy`; `None` stands for 20 steps, and a step of 0.02 (ε of genpipe/nn/chains.py), without the prior.
        """
        options = {"steps": steps, "step": step, "with_prior": with_prior}
        unused = [name for name, value in options.items() if value is not None]
        if chain == "none" and unused:
            raise BadInput(
                f"sample.how.{unused[0]} has no effect without a chain; take it out, or set chain: langevin"
            )
        z = torch.randn(n, self.latent_dim)
        if chain != "none":
            z = self.moved(z, chain, steps or 20, step or 0.02, bool(with_prior)).z
        return self.decode(z, given)

    def moved(self, z: Tensor, chain: Chain, steps: int, step: float, with_prior: bool) -> chains.Ends:
        """The ends of chains from codes, [n, latent_dim], and the share of proposals that each took."""
        move = {"langevin": chains.langevin, "mala": chains.mala}[chain]
        return move(lambda z: self.latent_energy(z, with_prior), z, steps, step)

    def latent_energy(self, z: Tensor, with_prior: bool) -> Tensor:
        """U(G(z)), [n], and with the prior ‖z‖²/2 more.

        Without it: the article's, which is heuristic (its density is that of the energy only where G keeps volumes). With it:
        chains sample the density of G times exp(−U), exactly (Che et al., *Your GAN is Secretly an Energy-based Model*, 2020).
        """
        energy = self._energy(self.generator(z))
        return energy + z.square().sum(1) / 2 if with_prior else energy

    def decode(self, z: Tensor, given: Example) -> Example:
        """Images in [0, 1], [batch, channels, height, width], or points, [batch, dim]."""
        return self.examples.as_values(self.generator(z))

    def _energy(self, x: Tensor) -> Tensor:
        return -self.scorer(x)

    def _codes(self, n: int) -> Tensor:
        parameter = next(self.parameters())
        return torch.randn(n, self.latent_dim, dtype=parameter.dtype, device=parameter.device)

    def _read(self, z: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of reading codes from what was made of them, and nats of information about them, both 0-dimensional."""
        if self.entropy == "infogan":
            code = self.reader(made)
            return code_loss(z, code).mean(), information_of_codes(z, code)
        # fresh codes are unrelated to every example, also in a slice of one row, which cannot be shuffled
        paired, unpaired = self.reader(made, z, self._codes(len(z)))
        return pairs_loss(paired, unpaired).mean(), information_of_pairs(paired)
