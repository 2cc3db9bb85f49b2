"""Trainings of the recipe gan: the block wgan_gp against a loop written by hand, dynamics in the plane, clipping, a ring."""

import pytest
import torch
from torch import nn

from genpipe.assembly import build
from genpipe.data.opening import open_data
from genpipe.models.gan import GAN
from genpipe.nn.conv import ConvEncoder, ConvGenerator
from genpipe.params.training import Training
from genpipe.recipe import Loss, Phase, Recipe, Update
from genpipe.training.logical import Alone
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer
from tests import tiny


class PlainWGANGP(Recipe):
    """WGAN-GP in its own words: what the block wgan_gp was before it became one of the recipe gan."""

    def __init__(self, image_shape, latent_dim, width, feature_dim, critic_steps):
        super().__init__()
        self.latent_dim, self.critic_steps = latent_dim, critic_steps
        self.critic = nn.Sequential(
            ConvEncoder(image_shape, width, feature_dim),
            nn.LeakyReLU(0.2),
            nn.Linear(feature_dim, 1, bias=False),
            nn.Flatten(0),
        )
        self.generator = ConvGenerator(image_shape, width, latent_dim)

    def phases(self):
        critic = Update("critic", self.critic_loss, (self.critic,))
        generator = Update("generator", self.generator_loss, (self.generator,), every=self.critic_steps)
        return (Phase("adversarial", (critic, generator)),)

    def critic_loss(self, batch):
        real = 2 * (batch["images"].float() / 255) - 1
        fake = self.generator(torch.randn(len(real), self.latent_dim)).detach()
        score_real, score_fake = self.critic(torch.cat([real, fake])).chunk(2)
        gap = (score_real - score_fake).mean()
        x = torch.lerp(real, fake, torch.rand(len(real), 1, 1, 1)).requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(x).sum(), x, create_graph=True)
        penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        return Loss(10 * penalty - gap)

    def generator_loss(self, batch):
        return Loss(-self.critic(self.generator(torch.randn(len(batch["images"]), self.latent_dim))).mean())


def test_the_block_wgan_gp_ends_on_the_bits_of_the_loss_in_its_own_words(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "SIDE", 20)
    data = open_data(tiny.write_images(tmp_path / "images"), {})
    known = {"latent_dim": 4, "width": 4, "feature_dim": 8, "critic_steps": 2}
    solver = {"lr": 1e-3, "betas": [0.5, 0.9], "decay": "linear"}
    params = Training.model_validate(
        {"batch_size": 8, "steps": 6, "solvers": {"critic": solver, "generator": solver}}
    )
    ends = []
    for make in (
        PlainWGANGP,
        lambda shape, **known: GAN(shape, divergence="wgan", penalty="two_sided", **known),
    ):
        torch.manual_seed(1)
        recipe = make((1, 20, 20), **known)
        Trainer(recipe, data, params, 1, Alone(), Run(tmp_path / make.__name__)).fit()
        ends.append([*recipe.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_clipped_critic_has_no_weight_outside_of_the_bound(tmp_path):
    data = tiny.data_for("gan", tmp_path)
    clipped = {"lr": 0.05, "weights": [{"do": "clip", "parameters": "critic", "bound": 0.03}]}
    network = {**tiny.BLOCKS["gan"]["network"], "divergence": "wgan", "critic_steps": 2}
    solvers = {"critic": clipped, "generator": {"lr": 0.05}}
    params = Training.model_validate(tiny.training("gan", network=network, solvers=solvers))
    recipe = build("gan", network, data.facts, 0)
    Trainer(recipe, data, params, 0, Alone(), Run(tmp_path / "clipped")).fit()
    weights = torch.cat([parameter.flatten() for parameter in recipe.critic.parameters()])
    assert weights.abs().max() <= 0.03
    assert (weights.abs() == torch.tensor(0.03)).float().mean() > 0.1
    assert max(parameter.abs().max() for parameter in recipe.generator.parameters()) > 0.03


class Shifted(nn.Module):
    """A generator of the same Gaussian at another place."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, z, labels=None):
        return z + self.shift


def test_the_gap_of_a_critic_with_a_penalty_comes_to_the_distance_of_two_gaussians():
    """W1 of N(0, 1) and N(m, 1) is |m|; with a linear critic of slope s the game is worth s |m| − λ (s − 1)²."""
    torch.manual_seed(0)
    model = GAN(
        None,
        2,
        architecture="mlp",
        latent_dim=2,
        width=32,
        feature_dim=32,
        divergence="wgan",
        penalty="two_sided",
    )
    model.generator = Shifted(torch.tensor([0.9, -1.2]))
    solver = torch.optim.Adam(model.critic.parameters(), 3e-3)
    for _ in range(250):
        solver.zero_grad()
        model.critic_loss({"points": torch.randn(128, 2)}).value.backward()
        solver.step()
    loss = model.critic_loss({"points": torch.randn(4000, 2)})
    best = 1 + 1.5 / 20
    assert loss.metrics["score_gap"].item() == pytest.approx(best * 1.5, rel=0.1)
    assert loss.metrics["slope"].item() == pytest.approx(best, abs=0.1)
