"""Exact tests of the energy GAN: signs, the penalty, who moves whom, the samplers, and the energies of a square."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genpipe.assembly import build
from genpipe.data.opening import open_data
from genpipe.errors import BadInput
from genpipe.evaluation.energies import Square, energy_map, judge_energy, square_around
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.models.energy_gan import EnergyGAN, squared_slopes
from genpipe.sampling.draw import draw
from tests import tiny

IMAGE = (1, 8, 8)


def batch(n=6, shape=IMAGE):
    return {"images": torch.randint(0, 256, (n, *shape), dtype=torch.uint8)}


def model(**changes):
    return EnergyGAN(
        **{"image_shape": IMAGE, "latent_dim": 4, "width": 4, "feature_dim": 8, **changes}
    ).double()


def reached(loss, module):
    parameters = list(module.parameters())
    found = torch.autograd.grad(loss.value, parameters, allow_unused=True, retain_graph=True)
    return {gradient is not None and bool(gradient.abs().max() > 0) for gradient in found}


class Linear(nn.Module):
    """The score w · x + c."""

    def __init__(self, dim):
        super().__init__()
        self.weight, self.constant = nn.Parameter(torch.randn(dim)), 0.0

    def forward(self, x):
        return x.flatten(1) @ self.weight + self.constant


def test_the_square_of_the_slope_of_a_linear_energy_is_that_of_its_weights():
    """‖w‖² an image: over all its pixels and channels, not the mean of norms at each pixel."""
    critic, x = Linear(192).double(), torch.randn(5, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    found = squared_slopes(-critic(x), x)
    assert torch.allclose(found, critic.weight.square().sum().expand(5), atol=1e-12)
    (gradient,) = torch.autograd.grad(found.mean(), critic.weight)
    assert torch.allclose(gradient, 2 * critic.weight, atol=1e-12)


def test_the_penalty_has_its_centre_at_zero_and_looks_at_real_examples_only():
    """Of a linear energy the loss is E U(x) − E U(G(z)) + λ ‖w‖², and of a constant one it is 0."""
    made, x = model(penalty_weight=0.7), batch()
    made.scorer = Linear(64).double()
    torch.manual_seed(0)
    loss = made.energy_loss(x)
    torch.manual_seed(0)
    with torch.no_grad():
        fake = made.generator(torch.randn(6, 4, dtype=torch.float64))
    real = x["images"].double() / 127.5 - 1
    energies = [-made.scorer(images).mean() for images in (real, fake)]
    expected = energies[0] - energies[1] + 0.7 * made.scorer.weight.square().sum()
    assert loss.value.item() == pytest.approx(expected.item(), abs=1e-10)
    assert loss.metrics["energy_gap"].item() == pytest.approx((energies[1] - energies[0]).item(), abs=1e-12)
    with torch.no_grad():
        made.scorer.weight.zero_()
    made.scorer.constant = 5.0
    assert made.energy_loss(x).value.item() == 0


def test_a_constant_added_to_all_energies_changes_no_gradient():
    made, x = model(), batch()
    made.scorer = Linear(64).double()
    values = []
    for constant in (0.0, 3.0):
        made.scorer.constant = constant
        torch.manual_seed(0)
        values.append(made.energy_loss(x).value.item())
    assert values[0] == pytest.approx(values[1], abs=1e-10)


@pytest.mark.parametrize("entropy", ["jsd", "infogan", "none"])
def test_each_player_moves_its_own_networks(entropy):
    made = model(entropy=entropy)
    assert reached(made.energy_loss(batch()), made.generator) == {False}
    assert reached(made.energy_loss(batch()), made.scorer) == {True}
    loss = made.generator_loss(batch())
    assert True in reached(loss, made.generator)
    (phase,) = made.phases()
    energy, generator = phase.updates
    assert energy.modules == (made.scorer,)
    assert (energy.every, generator.every) == (1, 5)
    assert generator.modules == (made.generator, *(() if entropy == "none" else (made.reader,)))
    if entropy != "none":
        assert True in reached(loss, made.reader)


def test_a_reader_that_sees_nothing_costs_two_ln_2():
    made = model(entropy="jsd", entropy_weight=1.0)
    made.scorer = Linear(64).double()
    with torch.no_grad():
        made.scorer.weight.zero_()
        made.reader.layers[-2][-1].weight.zero_()
        made.reader.layers[-2][-1].bias.zero_()
    loss = made.generator_loss(batch())
    assert loss.value.item() == pytest.approx(2 * math.log(2), abs=1e-12)
    assert loss.metrics["information"].item() == 0


def test_a_reader_of_codes_that_is_right_costs_nothing_but_energy():
    made = EnergyGAN(dim=2, latent_dim=2, width=4, architecture="mlp", entropy="infogan").double()
    made.generator, made.reader, made.scorer = nn.Identity(), nn.Identity(), Linear(2).double()
    torch.manual_seed(0)
    value = made.generator_loss({"points": torch.zeros(6, 2)}).value.item()
    torch.manual_seed(0)
    z = torch.randn(6, 2, dtype=torch.float64)
    assert value == pytest.approx(-made.scorer(z).mean().item(), abs=1e-12)


@pytest.mark.parametrize("entropy", ["jsd", "infogan"])
def test_what_a_reader_has_learned_pushes_a_generator_that_shrinks_out_again(entropy):
    """G(z) = a z, a reader trained at a = 1: where a is 1/2, the loss falls in a. Else a generator would keep no entropy."""
    torch.manual_seed(0)
    made = EnergyGAN(dim=1, latent_dim=1, width=16, feature_dim=16, architecture="mlp", entropy=entropy)
    made.generator, made.scorer = nn.Linear(1, 1, bias=False), Linear(1)
    nn.init.ones_(made.generator.weight)
    nn.init.zeros_(made.scorer.weight)
    solver, points = torch.optim.Adam(made.reader.parameters(), 1e-2), {"points": torch.zeros(64, 1)}
    for _ in range(100):
        solver.zero_grad()
        made.generator_loss(points).value.backward()
        solver.step()
    nn.init.constant_(made.generator.weight, 0.5)
    (gradient,) = torch.autograd.grad(made.generator_loss(points).value, made.generator.weight)
    assert gradient < -0.1


def test_the_energy_of_what_is_real_falls_below_that_of_what_is_made():
    torch.manual_seed(0)
    made, x = model(), {"images": torch.full((8, *IMAGE), 200, dtype=torch.uint8)}
    solver = torch.optim.Adam(made.scorer.parameters(), 1e-3)
    for _ in range(30):
        solver.zero_grad()
        made.energy_loss(x).value.backward()
        solver.step()
    made.eval()
    values = {"images": x["images"].double() / 255}
    with torch.no_grad():
        drawn = made.decode(torch.randn(8, 4).double(), {})
        assert made.energy(values).max() < made.energy(drawn).min()


def gaussian_model(variance=1.0):
    """An energy ‖x‖²/(2 variance) of points that are their own codes: chains of codes have a known end."""
    made = EnergyGAN(dim=1, latent_dim=1, width=4, architecture="mlp")
    made.generator, made.scorer = nn.Identity(), Bowl(variance)
    return made


class Bowl(nn.Module):
    """The score −‖x‖²/(2 variance)."""

    def __init__(self, variance):
        super().__init__()
        self.variance = variance

    def forward(self, x):
        return -x.square().sum(1) / (2 * self.variance)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"chain": "langevin", "step": 0.5}, 0.5 / (1 - 0.5 / (4 * 0.5))),
        ({"chain": "mala", "step": 0.5}, 0.5),
        ({"chain": "mala", "step": 0.5, "with_prior": True}, 1 / 3),
        ({"chain": "none"}, 1.0),
    ],
)
def test_chains_of_codes_end_in_the_density_of_their_energy(how, expected):
    """Energy x²: exp(−U) has the variance 1/2; times the density of the generator, N(0, 1), it is 1/3."""
    options = how if how["chain"] == "none" else {"steps": 25, **how}
    drawn = draw(gaussian_model(0.5), 6000, 0, how=options)["points"]
    assert drawn.var().item() == pytest.approx(expected, rel=0.06)


def test_a_weight_of_no_entropy_is_refused():
    with pytest.raises(BadInput, match=r"network.entropy_weight has no effect with entropy none"):
        model(entropy="none", entropy_weight=1.0)
    assert model(entropy="jsd").entropy_weight == 1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"chain": "hmc"}, "sample.how.chain: Input should be 'none', 'langevin' or 'mala', not 'hmc'"),
        ({"step": 0}, "sample.how.step: Input should be greater than 0, not 0"),
        ({"temperature": 2}, "sample.how.temperature: not an option of"),
        ({"steps": 5}, "sample.how.steps has no effect without a chain; take it out, or set chain: langevin"),
        ({"with_prior": False}, "sample.how.with_prior has no effect without a chain"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(how, message):
    with pytest.raises(BadInput, match=message):
        draw(gaussian_model(), 10, 0, how=how)


@pytest.mark.parametrize(
    ("network", "facts", "message"),
    [
        (
            {"entropy": "mine"},
            {"image_shape": IMAGE},
            "train.network.entropy: Input should be 'jsd', 'infogan' or 'none'",
        ),
        ({}, {"image_shape": (1, 1, 1)}, "takes images of 8×8 or more, not 1×1"),
        ({}, {"dim": 2}, "dcgan takes images, and these are points; take mlp"),
        ({}, {"num_tokens": 9}, "the data must be images or points"),
    ],
)
def test_a_network_that_cannot_be_is_one_line(network, facts, message):
    with pytest.raises(BadInput, match=message):
        build("energy_gan", network, facts, 0)


# the energies of a square


def bowl(x):
    return x["points"].double().square().sum(1) / 2


def test_a_map_of_energies_has_its_values_where_it_says():
    found = energy_map(lambda x: x["points"][:, 0] + 10 * x["points"][:, 1], Square(-1, 2, 4), 8)
    assert found.energies.shape == (8, 8)
    assert torch.allclose(found.energies, found.x + 10 * found.y[:, None], atol=1e-5)
    assert found.x[0].item() == pytest.approx(-0.75)
    assert found.y[-1].item() == pytest.approx(5.75)


def test_the_integral_over_a_map_is_that_of_the_density():
    """∫ exp(−‖x‖²/2) = 2π, also where energies are far from 0."""
    for constant in (0.0, 800.0):
        found = energy_map(lambda x: bowl(x) + constant, Square(-8, -8, 16), 200)  # noqa: B023
        assert found.log_partition() == pytest.approx(math.log(2 * math.pi) - constant, abs=1e-6)


def test_a_square_holds_all_points_and_a_margin():
    square = square_around(torch.tensor([[0.0, 0.0], [4.0, 2.0]]), margin=0.25)
    assert square == Square(-1.0, -2.0, 6.0)
    flat = square_around(torch.ones(5, 2))
    assert flat.length > 0


def trial(root, energy):
    recipe = tiny.recipe_of("energy_gan_points", tiny.data_for("energy_gan_points", root)).eval()
    recipe.energy = energy
    data = tiny.data_for("energy_gan_points", root)
    return Trial(recipe, data, "points", "test", root, lambda: recipe, None, 0)


def test_a_judge_of_energies_finds_the_nats_of_a_known_density(tmp_path):
    made = trial(tmp_path, lambda x: 3.0 + 5 * bowl(x))
    points = np.load(tmp_path / "artifacts/encoded/points/test_points.npy").astype(np.float64)
    expected = 2.5 * np.square(points).sum(1).mean() + math.log(2 * math.pi / 5)
    assert judge_energy(made)["nats_per_point_on_grid"] == pytest.approx(expected, abs=0.02)


def test_energies_of_more_than_two_dimensions_are_not_measured(tmp_path):
    made = trial(tmp_path, bowl)
    for split, n in (("train", 64), ("test", 40)):
        np.save(tmp_path / f"artifacts/encoded/points/{split}_points.npy", np.zeros((n, 3), np.float32))
    wide = open_data(tiny.describe(tmp_path / "artifacts/encoded/points", "points", {"dim": 3}), {})
    with pytest.raises(NotMeasured, match="a grid of 3 dimensions is too large"):
        judge_energy(Trial(made.recipe, wide, "points", "test", tmp_path, made.yardstick, None, 0))
