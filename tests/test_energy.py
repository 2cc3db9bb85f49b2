"""Exact tests of energy models: presets, classes, temperature 1, replayed chains, and energies that run away."""

import math

import pytest
import torch

from genpipe.errors import BadInput
from genpipe.evaluation.energies import energy_map, square_around
from genpipe.models.energy import MOST_GAP, EnergyModel, chain_of
from genpipe.nn import chains
from tests import tiny


def of_points(**changes):
    torch.manual_seed(0)
    return EnergyModel(dim=2, preset="langevin", width=16, **({"num_replay": 512} | changes)).double()


def of_classes(num_replay=40, **changes):
    torch.manual_seed(0)
    return EnergyModel(
        (1, 8, 8), num_classes=3, conditional=True, width=4, num_replay=num_replay, chain_steps=1, **changes
    ).double()


def as_gaussian(model):
    """Only the factor is left: the energy is ‖z‖²/2."""
    with torch.no_grad():
        model.layers[-2].weight.zero_()


def test_presets_are_the_published_pair_and_temperature_1():
    igebm = chain_of("igebm")
    assert (igebm.step, igebm.noise, igebm.bound, igebm.square_weight) == (10, 0.005, 0.01, 1)
    assert igebm.noise**2 / (2 * igebm.step) == pytest.approx(1.25e-6), "its temperature"
    for step in (None, 0.1):
        chain = chain_of("langevin", step=step)
        assert chain.noise**2 / (2 * chain.step) == pytest.approx(1)
    assert chain_of("igebm", bound=0.02) == igebm._replace(bound=0.02)


@pytest.mark.parametrize("knob", ["noise", "bound"])
def test_temperature_1_leaves_no_choice_of_noise(knob):
    with pytest.raises(BadInput, match=f"train.network.{knob} has no effect on the preset langevin"):
        EnergyModel(dim=2, preset="langevin", **{knob: 0.1})


def test_points_are_sampled_at_temperature_1_only():
    with pytest.raises(BadInput, match="preset: igebm takes images, and these are points; take langevin"):
        EnergyModel(dim=2, preset="igebm")


@pytest.mark.parametrize("step", [0.1, 0.25])
def test_chains_of_a_gaussian_have_the_variance_of_unadjusted_ones(step):
    """σ²/(1 − ε/4σ²) with ε = 2 · step and σ = 1: of samples in the units of the data times the square of the scale."""
    model = of_points(step=step, num_replay=10000)
    as_gaussian(model)
    model.middle.copy_(torch.tensor([3.0, -1.0]))
    model.scale.fill_(2)
    torch.manual_seed(1)
    made = model.sample(10000, {}, steps=25)["points"]
    expected = 4 / (1 - step / 2)
    assert made.var(0).tolist() == pytest.approx([expected] * 2, rel=0.05)
    assert made.mean(0).tolist() == pytest.approx([3, -1], abs=0.1)


def test_a_density_in_the_plane_has_the_integral_1_also_where_the_network_falls_linearly():
    model = of_points()
    as_gaussian(model)
    model.scale.fill_(0.5)
    found = energy_map(model.energy, square_around(torch.tensor([[-3.0, -3.0], [3.0, 3.0]])))
    assert found.log_partition() == pytest.approx(math.log(2 * math.pi * 0.25), abs=1e-5)


def test_the_middle_and_the_scale_are_those_of_the_points():
    model = of_points()
    points = torch.randn(5000, 2) * 3 + torch.tensor([1.0, 5.0])
    model.measure(iter([{"points": part} for part in points.split(500)]))
    used = points[:4500].double()
    assert torch.allclose(model.middle, used.mean(0))
    assert model.scale.item() == pytest.approx((used - used.mean(0)).square().mean().sqrt().item())


def test_a_density_of_points_is_learned_on_the_grid():
    """Two clusters: the surprise on a grid is far below that of a Gaussian of the points, and not below the entropy."""
    torch.manual_seed(0)
    model = EnergyModel(dim=2, preset="langevin", width=32, num_replay=512, chain_steps=10, step=0.02)
    points = 0.3 * torch.randn(2048, 2) + torch.where(torch.arange(2048)[:, None] % 2 == 0, 1.0, -1.0)
    model.measure([{"points": points}, {"points": points}])
    solver = torch.optim.Adam(model.layers.parameters(), betas=(0.5, 0.999))
    for step in range(300):
        # at a rate that stays, the energy swings about the density, and the last step says little
        solver.param_groups[0]["lr"] = 3e-3 * (1 - step / 300)
        loss = model.contrastive_loss({"points": points[step % 8 * 256 :][:256], "replay": model.replay})
        solver.zero_grad()
        loss.value.backward()
        solver.step()
    found = energy_map(lambda x: model.energy(x).detach(), square_around(points))
    nats = model.energy({"points": points}).mean().item() + found.log_partition()
    entropy = math.log(2) + math.log(2 * math.pi * math.e * 0.09)
    gaussian = math.log(2 * math.pi * math.e) + 0.5 * torch.logdet(torch.cov(points.T)).item()
    assert entropy - 0.05 < nats < gaussian - 0.4


def test_a_chain_keeps_its_class_and_one_that_starts_anew_has_that_of_a_real_example():
    for restart, expected in ((0.0, 2), (0.999999, 1)):
        model = of_classes(restart=restart)
        model.replay_labels.fill_(2)
        images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
        rows = {"replay": model.replay, "replay_labels": model.replay_labels}
        model.contrastive_loss({"images": images, "labels": torch.ones(8, dtype=torch.int64), **rows})
        assert (model.replay_labels == expected).sum() == (40 if restart == 0 else 8)


def test_samples_of_a_class_go_on_from_rows_of_it_and_from_noise_where_there_are_none():
    model = of_classes()
    model.replay.copy_((model.replay_labels * 60).to(torch.uint8).view(-1, 1, 1, 1).expand_as(model.replay))
    starts = model._starts_of(torch.tensor([0, 1, 1, 2]))
    assert torch.equal((256 * starts).floor().amax((1, 2, 3)), torch.tensor([0, 60, 60, 120]).double())
    model.replay_labels.fill_(0)
    assert model._starts_of(torch.tensor([1])).std() > 0.2


def test_each_class_has_its_own_energy_and_its_chains_their_own_ends():
    """With a Gaussian for each class every chain ends about its own middle."""
    model = EnergyModel(
        dim=2, num_classes=2, conditional=True, preset="langevin", step=0.05, num_replay=400
    ).double()
    middles = torch.tensor([[2.0, 0.0], [-2.0, 0.0]]).double()
    model._through = lambda x, labels: -(x * middles[labels]).sum(1)
    labels = torch.arange(400) % 2
    made = model.sample(400, {"labels": labels}, steps=60)["points"]
    for label in (0, 1):
        assert torch.allclose(made[labels == label].mean(0), middles[label], atol=0.3)


def test_a_gain_of_a_class_changes_energies_of_that_class_alone():
    model = of_classes()
    x = {"images": torch.rand(3, 1, 8, 8).double(), "labels": torch.tensor([0, 1, 2])}
    before = model.energy(x)
    assert torch.allclose(before, model.layers(2 * x["images"] - 1), atol=1e-12), "no class counts at first"
    with torch.no_grad():
        model.gains[0].weight[1] += 1
    assert torch.equal((model.energy(x) != before), torch.tensor([False, True, False]))


def test_energies_that_run_away_stop_the_training_by_one_line(tmp_path):
    data = tiny.data_for("energy", tmp_path)
    trainer = tiny.trainer_of("energy", data, tmp_path / "run")
    watch = trainer.phases[0].updates[0].watch
    assert watch is not None
    assert watch({"energy_gap": -MOST_GAP}) is None
    with torch.no_grad():
        trainer.recipe.get_parameter("layers.9.weight").mul_(1e8)
    with pytest.raises(
        BadInput,
        match=r"update 'contrastive' of EnergyModel at step 0: the chains run away: .* nats (above|below)",
    ) as error:
        trainer.fit()
    assert "newest in .genpipe/runs/run" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_step_of_the_preset_is_that_of_the_chain():
    """z' = z − step ∇U + √(2 step) ξ."""
    model = of_points(step=0.08)
    x = torch.randn(5, 2).double()
    torch.manual_seed(2)
    made = model._ends(x, None, 1)
    torch.manual_seed(2)
    at = chains.place(lambda z: model._energy(z, None), x)
    assert torch.allclose(made, x - 0.08 * at.gradient + 0.4 * torch.randn_like(x), atol=1e-12)
