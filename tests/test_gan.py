"""Exact tests of adversarial losses: constants, symmetries, penalties of linear critics, who moves whom, the single loss."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.models.gan import GAN
from genpipe.nn.divergences import DIVERGENCES, divergence
from genpipe.nn.penalties import PENALTIES, between, slopes
from genpipe.nn.snapshot import Snapshot
from genpipe.training.weight_transforms import normalise

every_divergence = pytest.mark.parametrize("name", DIVERGENCES)
LN2 = math.log(2)


def batch(n=8, side=8):
    labels = torch.arange(n) % 3
    images = torch.randint(0, 256, (n, 1, side, side), dtype=torch.uint8)
    return {"images": images, "labels": labels}


def gan(**changes):
    torch.manual_seed(0)
    known = {"image_shape": (1, 8, 8), "num_classes": 3, "latent_dim": 4, "width": 4, "feature_dim": 8}
    return GAN(**{**known, **changes}).double()


def gradients(value, *modules):
    parameters = [p for module in modules for p in module.parameters()]
    return torch.autograd.grad(value, parameters, allow_unused=True)


def after_seed(loss, given):
    """A loss that draws the numbers of one seed."""
    torch.manual_seed(7)
    return loss(given)


def linear(size):
    """A critic w · x of examples with `size` numbers, called as the critics of recipes are."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(size, 1, bias=False), nn.Flatten(0)).double()
    return critic, critic[1].weight


# -------------------------------------------------------------------------------------------------------- divergences


def scores(n=6):
    torch.manual_seed(1)
    return torch.randn(2, n).double().unbind()


@pytest.mark.parametrize(
    ("name", "critic", "generator"),
    [
        ("sgan", 2 * LN2, LN2),
        ("sgan_saturating", 2 * LN2, -LN2),
        ("lsgan", 1, 1),
        ("hinge", 2, 0),
        ("rsgan", LN2, LN2),
        ("rasgan", LN2, LN2),
        ("ralsgan", 1, 1),
        ("rahinge", 2, 2),
        ("wgan", 0, 0),
        ("gan_qp_l1", 0, 0),
        ("gan_qp_l2", 0, 0),
    ],
)
def test_what_a_critic_that_sees_nothing_costs(name, critic, generator):
    model = gan(divergence=name)
    nn.init.zeros_(model.critic.head.weight)
    assert model.critic_loss(batch()).value.item() == pytest.approx(critic, abs=1e-12)
    assert model.generator_loss(batch()).value.item() == pytest.approx(generator, abs=1e-12)


@every_divergence
def test_losses_of_pairs_alone_do_not_change_with_a_shift_of_all_scores(name):
    r, f = scores()
    losses = divergence(name)
    critic_stays = torch.allclose(losses.critic(r, f), losses.critic(r + 3, f + 3), atol=1e-12)
    generator_stays = torch.allclose(losses.generator(r, f), losses.generator(r + 3, f + 3), atol=1e-12)
    assert generator_stays == losses.of_pairs
    assert critic_stays == (losses.of_pairs or name in ("wgan", "gan_qp_l1", "gan_qp_l2"))


@pytest.mark.parametrize("name", [name for name, losses in DIVERGENCES.items() if losses.of_pairs])
def test_the_players_of_a_relativistic_game_exchange_their_roles(name):
    r, f = scores()
    assert torch.equal(divergence(name).critic(r, f), divergence(name).generator(f, r))


@pytest.mark.parametrize(
    "name", [name for name, losses in DIVERGENCES.items() if losses.of_pairs or "wgan" in name]
)
def test_a_bias_at_the_end_of_a_relativistic_critic_has_no_gradient(name):
    critic = nn.Linear(3, 1).double()
    x, y = torch.randn(2, 6, 3).double()
    value = divergence(name).critic(critic(x).squeeze(1), critic(y).squeeze(1)).mean()
    weight, bias = torch.autograd.grad(value, [critic.weight, critic.bias])
    assert bias.abs().item() < 1e-15
    assert weight.norm() > 0.01


@every_divergence
def test_losses_are_finite_where_the_critic_is_certain(name):
    for high in (200.0, -200.0):
        r = torch.full((4,), high, requires_grad=True)
        f = torch.full((4,), -high, requires_grad=True)
        for player in (divergence(name).critic, divergence(name).generator):
            value = player(r, f).mean()
            found = torch.autograd.grad(value, [r, f], allow_unused=True)
            assert value.isfinite()
            assert all(g is None or g.isfinite().all() for g in found)


@every_divergence
def test_critics_raise_real_scores_and_generators_those_of_their_own(name):
    r, f = (torch.zeros(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    up, down = torch.autograd.grad(divergence(name).critic(r, f).mean(), [r, f], allow_unused=True)
    assert down.max() >= 0 >= up.max() if name == "lsgan" else (up < 0).all() and (down > 0).all()
    (mine,) = torch.autograd.grad(divergence(name).generator(r, f).mean(), [f])
    assert (mine < 0).all()


def test_the_best_linear_critic_of_two_gaussians_is_the_log_ratio_of_their_densities():
    """p = N(0, 1), q = N(m, 1): ln p/q = −m x + m²/2. The points are quantiles, so nothing is random."""
    m, n = 1.5, 4000
    x = torch.special.ndtri((torch.arange(n).double() + 0.5) / n)[:, None]
    critic = nn.Linear(1, 1).double()
    solver = torch.optim.LBFGS(critic.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        solver.zero_grad()
        value = divergence("sgan").critic(critic(x).squeeze(1), critic(x + m).squeeze(1)).mean()
        value.backward()
        return value

    solver.step(loss)
    assert critic.weight.item() == pytest.approx(-m, abs=5e-3)
    assert critic.bias.item() == pytest.approx(m * m / 2, abs=5e-3)


@pytest.mark.parametrize("name", ["gan_qp_l1", "gan_qp_l2"])
def test_the_quadratic_potential_of_two_points_is_half_the_scaled_distance(name):
    """max over the difference D of D − D²/(2 λ d) is λ d / 2, at D = λ d: it never saturates."""
    scale, real, fake = (
        3.0,
        torch.tensor([[0.0, 0.3]], dtype=torch.float64),
        torch.tensor([[0.4, -0.2]], dtype=torch.float64),
    )
    distance = {"gan_qp_l1": 0.45, "gan_qp_l2": math.sqrt((0.16 + 0.25) / 2)}[name]
    r = torch.tensor([scale * distance], dtype=torch.float64, requires_grad=True)
    value = divergence(name).critic_loss(r, torch.zeros_like(r), real, fake, scale)
    assert -value.item() == pytest.approx(scale * distance / 2, abs=1e-12)
    (gradient,) = torch.autograd.grad(value.sum(), [r])
    assert gradient.abs().item() < 1e-12
    (copied,) = divergence(name).critic_loss(r.detach(), torch.zeros(1).double(), real, real, scale)
    assert copied.isfinite()


def entropy(score, label):
    """Cross entropy in nats of the probability σ(score) against a label."""
    p = 1 / (1 + np.exp(-score))
    return -np.log(p if label else 1 - p)


def hinge(x):
    return np.maximum(x, 0)


PAPERS = {  # (r, f, mean of r, mean of f) -> what the critic and the generator minimise, a row each
    "sgan": lambda r, f, _r, _f: (entropy(r, 1) + entropy(f, 0), entropy(f, 1)),
    "sgan_saturating": lambda r, f, _r, _f: (entropy(r, 1) + entropy(f, 0), -entropy(f, 0)),
    "lsgan": lambda r, f, _r, _f: ((r - 1) ** 2 + f**2, (f - 1) ** 2),
    "hinge": lambda r, f, _r, _f: (hinge(1 - r) + hinge(1 + f), -f),
    "rsgan": lambda r, f, _r, _f: (entropy(r - f, 1), entropy(f - r, 1)),
    "rasgan": lambda r, f, _r, _f: (
        (entropy(r - _f, 1) + entropy(f - _r, 0)) / 2,
        (entropy(r - _f, 0) + entropy(f - _r, 1)) / 2,
    ),
    "ralsgan": lambda r, f, _r, _f: (
        ((r - _f - 1) ** 2 + (f - _r + 1) ** 2) / 2,
        ((r - _f + 1) ** 2 + (f - _r - 1) ** 2) / 2,
    ),
    "rahinge": lambda r, f, _r, _f: (
        hinge(1 - (r - _f)) + hinge(1 + (f - _r)),
        hinge(1 + (r - _f)) + hinge(1 - (f - _r)),
    ),
    "wgan": lambda r, f, _r, _f: (f - r, -f),
    "gan_qp_l1": lambda r, f, _r, _f: (f - r, -f),
    "gan_qp_l2": lambda r, f, _r, _f: (f - r, -f),
}
APART = {
    "gan_qp_l1": lambda x: np.abs(x).mean((1, 2, 3)),
    "gan_qp_l2": lambda x: np.sqrt(np.square(x).mean((1, 2, 3))),
}


def real_and_fake(model, given):
    """What a loss that draws the numbers of `after_seed` compares."""
    torch.manual_seed(7)
    fake = model.generator(torch.randn(8, 4, dtype=torch.float64)).detach()
    return given["images"].double() / 127.5 - 1, fake


@every_divergence
def test_what_a_model_pays_is_what_the_papers_say_of_its_scores(name):
    model, given = gan(divergence=name), batch()
    with torch.no_grad():
        model.critic.head.weight.mul_(20)  # scores on both sides of the bends of all losses
    real, fake = real_and_fake(model, given)
    r, f = (model.critic(x).detach().numpy() for x in (real, fake))
    critic, generator = (part.mean() for part in PAPERS[name](r, f, r.mean(), f.mean()))
    if name in APART:
        critic += ((r - f) ** 2 / (2 * 10 * APART[name]((real - fake).numpy()))).mean()
    assert min(np.ptp(r), np.ptp(f), abs(r - f).max()) > 0.1
    assert after_seed(model.critic_loss, given).value.item() == pytest.approx(critic, abs=1e-10)
    assert after_seed(model.generator_loss, given).value.item() == pytest.approx(generator, abs=1e-10)


# ----------------------------------------------------------------------------------------------------------- penalties


def test_the_slope_of_a_linear_critic_is_the_norm_of_its_weights():
    critic, weight = linear(3 * 8 * 8)
    slope = slopes(critic, torch.randn(5, 3, 8, 8).double())
    assert torch.allclose(slope, weight.norm().expand(5), atol=1e-14)


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("two_sided", lambda norm: (norm - 1) ** 2),
        ("one_sided", lambda norm: max(norm - 1, 0) ** 2),
        ("wgan_div", lambda norm: norm**6),
        ("r1", lambda norm: norm**2 / 2),
    ],
)
@pytest.mark.parametrize("norm", [0.5, 1.7])
def test_what_a_linear_critic_pays_for_its_slope(name, cost, norm):
    model = gan(image_shape=(3, 8, 8), divergence="wgan", penalty=name, penalty_weight=0.7)
    model.critic.features, weight = linear(3 * 8 * 8)
    with torch.no_grad():
        weight.mul_(norm / weight.norm())
    model.critic.forward = lambda x, labels=None: model.critic.features(x)
    given = {"images": torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)}
    loss = model.critic_loss(given)
    assert (loss.value + loss.metrics["score_gap"]).item() == pytest.approx(0.7 * cost(norm), abs=1e-12)
    (gradient,) = gradients(loss.value, model.critic.features)
    model.penalty_weight = 0.0
    (plain,) = gradients(after_seed(model.critic_loss, given).value, model.critic.features)
    model.penalty_weight = 0.7
    (paid,) = gradients(after_seed(model.critic_loss, given).value, model.critic.features)
    step = 1e-6
    slope = 0.7 * (cost(norm + step) - cost(norm - step)) / (2 * step)
    assert torch.allclose(paid - plain, slope * weight / norm, atol=1e-8)
    assert gradient.isfinite().all()


class Bowl(nn.Module):
    """The critic ‖x‖²/2, whose slope at x is ‖x‖: only at the right points has it the right price."""

    def forward(self, x, labels=None):
        return x.flatten(1).square().sum(1) / 2


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("two_sided", lambda norm, real, fake, between: (norm(between) - 1).square().mean()),
        ("one_sided", lambda norm, real, fake, between: (norm(between) - 1).clamp(min=0).square().mean()),
        ("wgan_div", lambda norm, real, fake, between: (norm(real) ** 6 + norm(fake) ** 6).mean() / 2),
        ("r1", lambda norm, real, fake, between: real.square().flatten(1).sum(1).mean() / 2),
    ],
)
def test_a_penalty_looks_at_its_own_points(name, price):
    model, given = gan(divergence="wgan", penalty=name, penalty_weight=0.7), batch()
    model.critic = Bowl()
    real, fake = real_and_fake(model, given)
    between = real + torch.rand(8, 1, 1, 1, dtype=torch.float64) * (fake - real)
    loss = after_seed(model.critic_loss, given)
    paid = 0.7 * price(lambda x: x.flatten(1).norm(dim=1), real, fake, between)
    assert (loss.value + loss.metrics["score_gap"]).item() == pytest.approx(paid.item(), rel=1e-10)


def test_the_slope_of_the_best_linear_critic_under_the_wasserstein_divergence():
    """max w·δ − k |w|^p has |w| = (|δ| / (k p))^(1 / (p − 1)) along δ."""
    shift, k, p = torch.tensor([0.6, -0.8], dtype=torch.float64) * 1.3, 2.0, 6
    norm = (1.3 / (k * p)) ** (1 / (p - 1))
    critic, weight = linear(2)
    with torch.no_grad():
        weight.copy_(norm * shift / shift.norm())
    fake = torch.randn(9, 2).double()
    real = fake + shift
    pays = PENALTIES["wgan_div"]
    paid = k * pays.cost(slopes(critic, pays.points(real, fake))).mean()
    (gradient,) = torch.autograd.grad(
        divergence("wgan").critic(critic(real), critic(fake)).mean() + paid, [weight]
    )
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4), (3, 4, 4)])
def test_a_point_between_two_examples_has_one_weight_an_example(shape):
    real, fake = torch.randn(2, 6, *shape).double().unbind()
    weights = ((between(real, fake) - real) / (fake - real)).flatten(1)
    assert torch.allclose(weights, weights[:, :1].expand_as(weights), atol=1e-10)
    assert (weights >= 0).all()
    assert (weights <= 1).all()
    assert weights[:, 0].std() > 0.05


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("schedule", ["alternating", "single"])
def test_a_penalty_reaches_the_critic_and_not_the_generator(name, schedule):
    model = gan(penalty=name, schedule=schedule, conditional=True)
    nn.init.constant_(model.critic.head.weight, 50.0)  # steeper than 1
    loss = model.single_loss if schedule == "single" else model.critic_loss
    results = []
    for weight in (0.0, 5.0):
        model.penalty_weight = weight
        given = batch()
        given["images"] = torch.arange(8 * 64, dtype=torch.int64).reshape(8, 1, 8, 8).to(torch.uint8)
        value = after_seed(loss, given).value
        results.append((gradients(value, model.critic), gradients(value, model.generator)))
    (plain, own), (paid, mine) = results
    assert not all(torch.allclose(a, b) for a, b in zip(plain, paid, strict=True))
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(own, mine, strict=True))


# ------------------------------------------------------------------------------------------------------------- players


@every_divergence
def test_each_player_moves_its_own_network_only(name):
    model, given = gan(divergence=name), batch()
    assert set(gradients(model.critic_loss(given).value, model.generator)) == {None}
    moved = gradients(model.generator_loss(given).value, model.generator)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in moved)
    assert max(gradient.abs().max() for gradient in moved) > 0
    players = {update.name: update.modules for phase in model.phases() for update in phase.updates}
    assert players == {"critic": (model.critic,), "generator": (model.generator,)}


@every_divergence
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("penalty", ["none", "two_sided", "wgan_div", "r1"])
def test_the_single_loss_has_the_gradients_of_two_losses(name, conditional, penalty):
    given = batch()
    known = {"divergence": name, "conditional": conditional, "penalty": penalty}
    single, turns = gan(schedule="single", **known), gan(**known)
    value = after_seed(single.single_loss, given).value
    critic = gradients(after_seed(turns.critic_loss, given).value, turns.critic)
    generator = gradients(after_seed(turns.generator_loss, given).value, turns.generator)
    found = gradients(value, single.critic, single.generator)
    for mine, theirs in zip(found, (*critic, *generator), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    assert value.item() == pytest.approx(after_seed(turns.critic_loss, given).value.item(), abs=1e-12)


@pytest.mark.parametrize("rule", ["spectral", "spectral_convolution"])
@pytest.mark.parametrize("penalty", ["none", "r1"])
def test_both_players_of_the_single_loss_see_one_normalised_critic(rule, penalty):
    """A pass in training moves the singular vectors, so two passes would have two critics."""
    given, models = batch(), {}
    for name, schedule in (("gan", "single"), ("critic", "alternating"), ("generator", "alternating")):
        models[name] = gan(schedule=schedule, penalty=penalty)
        torch.manual_seed(1)
        normalise(models[name], {r"critic.*weight$": rule})
    value = after_seed(models["gan"].single_loss, given).value
    found = gradients(value, models["gan"].critic, models["gan"].generator)
    critic = gradients(after_seed(models["critic"].critic_loss, given).value, models["critic"].critic)
    mine = gradients(
        after_seed(models["generator"].generator_loss, given).value, models["generator"].generator
    )
    for one, other in zip(found, (*critic, *mine), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_single_loss_tells_the_loss_of_the_generator():
    given, single, turns = batch(), gan(schedule="single"), gan()
    told = after_seed(single.single_loss, given).metrics["generator"]
    assert told.item() == pytest.approx(after_seed(turns.generator_loss, given).value.item(), abs=1e-12)


def test_a_critic_scores_an_example_by_itself():
    model, x = gan(), torch.randn(6, 1, 8, 8).double()
    assert torch.allclose(model.critic(x)[:1], model.critic(x[:1]), atol=1e-14)
    made = model.generator(torch.randn(6, 4).double())  # the control: batch norm looks at its neighbours
    assert not torch.allclose(made[:1], model.generator(torch.randn(6, 4).double())[:1])


@every_divergence
def test_a_critic_learns_to_score_real_above_generated(name):
    model = gan(divergence=name)
    solver = torch.optim.Adam(model.critic.parameters(), 1e-3)
    given = {"images": torch.full((8, 1, 8, 8), 230, dtype=torch.uint8)}
    for _ in range(20):
        for parameter, gradient in zip(
            model.critic.parameters(), gradients(model.critic_loss(given).value, model.critic), strict=True
        ):
            parameter.grad = gradient
        solver.step()
    assert model.critic_loss(given).metrics["score_gap"] > 0.01


# --------------------------------------------------------------------------------------------- the old generator's place


def old(weight=5.0, **changes):
    return gan(old_weight=weight, generator_steps=2, **changes)


def test_a_generator_that_has_not_moved_pays_nothing_for_its_place_and_is_not_pulled():
    given, model, plain = batch(), old(), gan()
    loss = after_seed(model.generator_loss, given)
    assert loss.metrics["moved"] == 0
    mine = gradients(loss.value, model.generator)
    theirs = gradients(after_seed(plain.generator_loss, given).value, plain.generator)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("conditional", [False, True])
def test_a_generator_that_has_moved_is_pulled_back_to_what_it_made_of_the_same_codes(conditional):
    """The gradient is 2 λ (G − G°) ∂G / pixels, where G° is a copy of the generator before it moved."""
    given, model = batch(), old(0.7, conditional=conditional)
    before = copy.deepcopy(model.generator)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    paid = gradients(after_seed(model.generator_loss, given).value, model.generator)
    torch.manual_seed(7)
    z = torch.randn(8, 4, dtype=torch.float64)
    labels = given["labels"] if conditional else None
    made, was = model.generator(z, labels), before(z, labels).detach()
    by_hand = 2 * 0.7 * (made - was) / made.numel()
    pull = torch.autograd.grad(made, list(model.generator.parameters()), by_hand)
    model.old_weight = 0.0
    plain = gradients(after_seed(model.generator_loss, given).value, model.generator)
    for a, b, c in zip(paid, pull, plain, strict=True):
        assert torch.allclose(a, b + c, atol=1e-12)


def test_the_critics_turn_takes_the_old_generators_place_and_statistics_stay():
    model = old()
    with torch.no_grad():
        model.generator.layers.layers[0].weight.add_(0.1)
    statistics = [buffer.clone() for buffer in model.generator.buffers()]
    z = torch.randn(8, 4).double()
    model.old.call(model.generator, z, None)
    assert all(torch.equal(a, b) for a, b in zip(statistics, model.generator.buffers(), strict=True))
    (critic, _) = model.phases()[0].updates
    critic.after()
    assert torch.equal(model.old.call(model.generator, z, None), model.generator(z))


def test_a_snapshot_of_normalised_weights_is_refused_before_anything_is_trained():
    model = old(architecture="mlp")
    normalise(model, {r"generator.*weight$": "spectral"})
    with pytest.raises(BadInput, match="take the generator out of the patterns, or old_weight out"):
        model.phases()
    other = old(architecture="mlp")
    normalise(other, {r"critic.*weight$": "spectral"})
    assert other.phases()


def test_a_snapshot_is_no_parameter_and_is_saved():
    module = nn.Linear(2, 2)
    snapshot = Snapshot(module)
    assert not list(snapshot.parameters())
    assert len(snapshot.state_dict()) == 2


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"divergence": "gans"}, "divergence: there is no 'gans'; there is: sgan, sgan_saturating"),
        ({"penalty": "r2"}, "penalty: there is no 'r2'; there is: none, two_sided"),
        ({"penalty_weight": 3.0}, "penalty_weight has no effect with penalty none"),
        ({"potential_scale": 3.0}, "potential_scale has no effect on sgan"),
        ({"conditional": True, "num_classes": None}, "conditional: the data has no labels"),
        ({"image_shape": None}, "the data must be images or points"),
        ({"image_shape": None, "dim": 2}, "dcgan takes images, and these are points; take mlp"),
        ({"critic_steps": 2, "generator_steps": 3}, "one of them must be 1, not 2 and 3"),
        ({"schedule": "single", "critic_steps": 2}, "both players move at once"),
        ({"schedule": "single", "dropout": 0.1}, "dropout: with the single loss both players see one draw"),
        ({"old_weight": 5.0}, "old_weight has no effect where the generator moves once"),
    ],
)
def test_networks_and_schedules_that_cannot_be_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        gan(**changes)


def test_a_class_that_does_not_exist_is_refused():
    model = gan(conditional=True).float()
    assert model.given == ("labels",)
    assert model.sample(2, {"labels": torch.tensor([0, 2])})["images"].shape == (2, 1, 8, 8)
    with pytest.raises(BadInput, match="the classes of this model are 0 to 2, not 7"):
        model.sample(2, {"labels": torch.tensor([0, 7])})
