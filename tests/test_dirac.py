"""Adversarial training of two points (Mescheder et al., 2018, arXiv:1801.04406; archives/6583), where all can be computed.

Real examples are 0, generated ones t, and the critic is c x. Each loss gives a field (ċ, ṫ), minus its gradients: signs,
factors and stopped gradients all show in it. The players are those of the recipe itself.
"""

import math

import pytest
import torch
from torch import nn

from genpipe.models.gan import GAN
from genpipe.params.training import Training
from genpipe.training.logical import Alone
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer


def sigma(x):
    return 1 / (1 + math.exp(-x))


def sign(x):
    return math.copysign(1, x)


FIELDS = {  # (c, t) -> (ċ, ṫ), by hand
    "sgan_saturating": lambda c, t: (-sigma(c * t) * t, sigma(c * t) * c),
    "sgan": lambda c, t: (-sigma(c * t) * t, (1 - sigma(c * t)) * c),
    "lsgan": lambda c, t: (-2 * c * t * t, -2 * (c * t - 1) * c),
    "hinge": lambda c, t: (-t * (c * t > -1), c),
    "rsgan": lambda c, t: (-sigma(c * t) * t, (1 - sigma(c * t)) * c),
    "rasgan": lambda c, t: (-sigma(c * t) * t, (1 - sigma(c * t)) * c),
    "ralsgan": lambda c, t: (-2 * (c * t + 1) * t, -2 * (c * t - 1) * c),
    "rahinge": lambda c, t: (-2 * t * (c * t > -1), 2 * c * (c * t < 1)),
    "wgan": lambda c, t: (-t, c),
    "gan_qp_l1": lambda c, t: (-t - c * abs(t) / 10, c),
    "gan_qp_l2": lambda c, t: (-t - c * abs(t) / 10, c),
    "wgan, two_sided": lambda c, t: (-t - 2 * 0.3 * (abs(c) - 1) * sign(c), c),
    "wgan, one_sided": lambda c, t: (-t - 2 * 0.3 * max(abs(c) - 1, 0) * sign(c), c),
    "wgan, wgan_div": lambda c, t: (-t - 6 * 0.3 * abs(c) ** 5 * sign(c), c),
    "wgan, r1": lambda c, t: (-t - 0.3 * c, c),
    "sgan, r1": lambda c, t: (-sigma(c * t) * t - 0.3 * c, (1 - sigma(c * t)) * c),
}


class Line(nn.Module):
    """The critic c x, or with no examples to look at, the generator t."""

    def __init__(self, value, is_critic):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([[value]], dtype=torch.float64))
        self.is_critic = is_critic

    def forward(self, x, labels=None):
        return (x * self.value).sum(1) if self.is_critic else self.value.expand(len(x), 1)


def dirac(name, c=1.0, t=1.0, **changes):
    divergence, _, penalty = name.partition(", ")
    known = {"divergence": divergence, "architecture": "mlp", "dim": 1, "latent_dim": 1}
    known |= {"penalty": penalty, "penalty_weight": 0.3} if penalty else {}
    model = GAN(**known, **changes)
    model.critic, model.generator = Line(c, True), Line(t, False)
    return model


def field_of(name, c, t, schedule):
    """Minus the gradients of the recipe's losses."""
    model, zeros = dirac(name, c, t, schedule=schedule), {"points": torch.zeros(3, 1, dtype=torch.float64)}
    critic, generator = model.critic.value, model.generator.value
    if schedule == "single":
        found = torch.autograd.grad(model.single_loss(zeros).value, [critic, generator])
    else:
        found = (
            *torch.autograd.grad(model.critic_loss(zeros).value, [critic]),
            *torch.autograd.grad(model.generator_loss(zeros).value, [generator]),
        )
    return tuple(-g.item() for g in found)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("schedule", ["alternating", "single"])
def test_the_losses_move_two_points_as_computed_by_hand(name, schedule):
    for c, t in [(1.0, 1.0), (-0.4, 1.3), (1.7, -0.2), (-2.0, -1.1), (2.0, -0.9), (0.6, 3.0)]:
        assert field_of(name, c, t, schedule) == pytest.approx(FIELDS[name](c, t), abs=1e-12)


class Zeros:
    """Data of points at 0."""

    def __init__(self):
        self.facts = {"dim": 1}

    def train_batch(self, seed, step, batch_size):
        return {"points": torch.zeros(batch_size, 1, dtype=torch.float64)}


@pytest.mark.parametrize("name", ["sgan", "wgan", "gan_qp_l1", "wgan, r1"])
@pytest.mark.parametrize("schedule", ["single", "alternating"])
def test_training_with_sgd_follows_the_field(name, schedule, tmp_path):
    """The single loss moves both players from where they are, turns move the generator from where the critic has gone."""
    lr, steps = 0.05, 30
    updates = {"single": ["gan"], "alternating": ["critic", "generator"]}[schedule]
    solver = {"optimiser": "sgd", "lr": lr}
    params = Training.model_validate(
        {"batch_size": 4, "steps": steps, "solvers": dict.fromkeys(updates, solver)}
    )
    model = dirac(name, schedule=schedule)
    Trainer(model, Zeros(), params, 1, Alone(), Run(tmp_path)).fit()
    c = t = 1.0
    for _ in range(steps):
        up = c + lr * FIELDS[name](c, t)[0]
        t += lr * FIELDS[name](c if schedule == "single" else up, t)[1]
        c = up
    assert (model.critic.value.item(), model.generator.value.item()) == pytest.approx((c, t), abs=1e-12)


def test_the_average_of_the_weights_is_near_the_middle_of_the_orbit(tmp_path):
    """With z = c + i t a step of WGAN is z ↦ (1 + i lr) z, so the average over all steps is the sum of a geometric series."""
    lr, decay, steps = 0.05, 0.99, 600
    params = Training.model_validate(
        {"batch_size": 4, "steps": steps, "ema": decay, "solvers": {"gan": {"optimiser": "sgd", "lr": lr}}}
    )
    trainer = Trainer(dirac("wgan", schedule="single"), Zeros(), params, 1, Alone(), Run(tmp_path))
    trainer.fit()
    end, turn = (1 + 1j) * (1 + 1j * lr) ** steps, decay / (1 + 1j * lr)
    average = (1 - decay) / (1 - decay**steps) * end * (1 - turn**steps) / (1 - turn)
    weights = trainer.recipe.state_dict()
    for found, expected in ((weights, end), (trainer.average.tensors, average)):
        at = complex(found["critic.value"].item(), found["generator.value"].item())
        assert at == pytest.approx(expected, abs=1e-10)
    assert abs(average) < 0.25 * abs(end)


def path(name, seconds, dt=0.05):
    """Distances from (0, 0) on the way from (1, 1) in a field or in that of a name, by fourth-order Runge–Kutta steps."""
    field = FIELDS[name] if isinstance(name, str) else name
    c, t, radii = 1.0, 1.0, []
    for _ in range(round(seconds / dt)):
        k1 = field(c, t)
        k2 = field(c + dt / 2 * k1[0], t + dt / 2 * k1[1])
        k3 = field(c + dt / 2 * k2[0], t + dt / 2 * k2[1])
        k4 = field(c + dt * k3[0], t + dt * k3[1])
        c, t = (
            x + dt / 6 * (a + 2 * b + 2 * e + f) for x, a, b, e, f in zip((c, t), k1, k2, k3, k4, strict=True)
        )
        radii.append(math.hypot(c, t))
    return radii


@pytest.mark.parametrize("name", ["sgan_saturating", "wgan"])
def test_these_games_circle_for_ever(name):
    assert path(name, 200) == pytest.approx([2**0.5] * 4000, abs=1e-4)


def test_the_non_saturating_game_comes_in_slowly():
    late = path("sgan", 200)[-400:]
    assert 0.1 < min(late) < max(late) < 0.3


def test_the_two_sided_penalty_does_not_let_the_game_come_to_rest():
    late = path("wgan, two_sided", 200)[-400:]
    assert 1.2 < min(late) < max(late) < 1.4


@pytest.mark.parametrize("name", ["wgan, r1", "sgan, r1"])
def test_penalties_with_centre_0_bring_the_game_to_rest(name):
    assert path(name, 200)[-1] < 1e-6


def test_the_potential_damps_less_and_less():
    """−c |t| / λ vanishes with t, so there is no exponential rate: the article has it swing on."""
    radii = path("gan_qp_l1", 200)
    assert radii[-1] > 0.03


def test_a_decay_of_the_critic_brings_the_potential_to_rest():
    """The article adds 0.1 c² / 2 to the critic's loss: then the way to (0, 0) is exponential."""

    def decayed(c, t):
        up, along = FIELDS["gan_qp_l1"](c, t)
        return up - 0.1 * c, along

    assert path(decayed, 200)[-1] < 0.01 * path("gan_qp_l1", 200)[-1]


def test_a_heavy_two_sided_penalty_parks_the_game_at_a_wrong_point():
    """With a weight of 1 the critic stays at 0 where t is 2: its slope is paid for at once, and the generator does not move on."""

    def heavy(c, t):
        return -t - 2 * (abs(c) - 1) * sign(c), c

    assert path(heavy, 40)[-1] == pytest.approx(2, abs=0.1)
