"""Exact tests of adversarially learned inference: its forms, BiGAN-QP, and who moves whom."""

import copy
import math

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.models.ali import ALI, critic_value, players_value
from genpipe.nn.divergences import potential

FORMS = ("label_swap", "derived", "saturating", "qp")


def ali(seed=0, shape=(1, 8, 8), **changes):
    torch.manual_seed(seed)
    network = {"latent_dim": 4, "width": 4, "feature_dim": 8, "dropout": 0.0, **changes}
    return ALI(image_shape=shape, **network).double()


def batch(n=6):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return {"images": images, "labels": torch.arange(n) % 3}


def scores(n=7):
    torch.manual_seed(0)
    return [score.requires_grad_() for score in 3 * torch.randn(2, n, dtype=torch.float64)]


def gradients(value, *modules):
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.autograd.grad(value, parameters, allow_unused=True)


def at(seed, loss):
    torch.manual_seed(seed)
    return loss(batch()).value


def same(a, b):
    return all(torch.allclose(x, y, atol=1e-12) for x, y in zip(a, b, strict=True))


def test_a_critic_that_sees_nothing_costs_ln_2_a_pair():
    zeros = torch.zeros(5, dtype=torch.float64)
    assert critic_value(zeros, zeros).item() == pytest.approx(2 * math.log(2))
    found = [players_value(form, zeros, zeros).item() for form in FORMS]
    assert found == pytest.approx([2 * math.log(2), 2 * math.log(2), -2 * math.log(2), 0])


def test_the_label_swap_is_the_loss_of_a_critic_whose_labels_are_swapped():
    """Also as gradients of encoder and generator, to whom the scores of both pairs flow."""
    model = ali()
    torch.manual_seed(3)
    real, made = model._scores(model._pairs(batch()))
    swapped = gradients(critic_value(made, real), model.encoder, model.generator)
    assert same(gradients(at(3, model.players_loss), model.encoder, model.generator), swapped)


def test_at_a_critic_that_sees_nothing_the_swap_pulls_as_the_saturating_game_does():
    """σ(0) = 1 − σ(0): only away from there do the two differ, and the swap pulls more where the critic is sure."""
    slopes = {}
    for size in (0.0, 3.0):
        real = torch.full((4,), size, dtype=torch.float64, requires_grad=True)
        made = torch.full((4,), -size, dtype=torch.float64, requires_grad=True)
        for form in ("label_swap", "saturating"):
            slopes[form, size] = torch.autograd.grad(players_value(form, real, made), (real, made))
    assert same(slopes["label_swap", 0.0], slopes["saturating", 0.0])
    assert slopes["label_swap", 3.0][0][0] > 10 * slopes["saturating", 3.0][0][0] > 0


def test_in_the_derived_form_the_encoder_helps_the_critic():
    """Its term of real pairs has the sign of the critic's; that of made pairs is the label-swap's."""
    real, made = scores()
    derived, swapped, critic = (
        torch.autograd.grad(value, (real, made))
        for value in (
            players_value("derived", real, made),
            players_value("label_swap", real, made),
            critic_value(real, made),
        )
    )
    assert torch.allclose(derived[0], critic[0], atol=1e-14)
    assert (derived[0] < 0).all()
    assert (swapped[0] > 0).all()
    assert torch.allclose(derived[1], swapped[1], atol=1e-14)


def test_the_saturating_players_want_the_opposite_of_the_critic():
    model = ali(form="saturating")
    players = gradients(at(3, model.players_loss), model.critic)
    critic = gradients(at(3, model.critic_loss), model.critic)
    assert same(players, [-gradient for gradient in critic])


def test_the_potential_of_two_points_is_half_their_distance():
    """It never saturates: the best gap is the distance, however far that is."""
    distance = torch.tensor([0.5, 1.0, 40.0], dtype=torch.float64)
    gap = distance.clone().requires_grad_()
    best = potential(gap, distance) - gap
    assert torch.allclose(-best, distance / 2, atol=1e-12)
    (slope,) = torch.autograd.grad(best.sum(), gap)
    assert slope.abs().max() < 1e-12
    for other in (1.01 * distance, 0.99 * distance):
        assert (potential(other, distance) - other > best).all()


def test_the_best_gap_of_two_distributions_is_the_published_one():
    """Δ/d = (p₁q₂ − p₂q₁)/(p₁q₂ + p₂q₁), so never more than d: no bound on the critic is needed."""
    p, q, d = 0.7, 0.2, torch.tensor(3.0, dtype=torch.float64)
    best = (p * (1 - q) - (1 - p) * q) / (p * (1 - q) + (1 - p) * q) * d
    gap = best.clone().requires_grad_()
    value = p * (1 - q) * (potential(gap, d) - gap) + (1 - p) * q * (potential(-gap, d) + gap)
    (slope,) = torch.autograd.grad(value, gap)
    assert abs(slope) < 1e-12
    assert abs(best) <= d


def test_two_pairs_that_are_equal_have_a_finite_potential():
    gap = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    value = potential(gap, torch.zeros(1, dtype=torch.float64))
    (slope,) = torch.autograd.grad(value.sum(), gap)
    assert value.isfinite().all()
    assert slope.isfinite().all()


def test_the_players_of_bigan_qp_have_no_quadratic_term():
    real, made = scores()
    slopes = torch.autograd.grad(players_value("qp", real, made), (real, made))
    assert [slope.unique().tolist() for slope in slopes] == [[1 / 7], [-1 / 7]]


def test_the_critic_of_bigan_qp_divides_by_the_distance_of_its_pairs():
    model = ali(form="qp", encoder="point", scale=10.0)
    torch.manual_seed(3)
    pairs = model._pairs(batch())
    apart = (pairs.x - pairs.made).abs().mean((1, 2, 3)) + (pairs.code - pairs.z).abs().mean(1)
    real, made = model._scores(pairs)
    expected = (0.5 * (real - made).square() / (10 * apart) - (real - made)).mean()
    assert at(3, model.critic_loss).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_constant_added_to_the_scores_changes_bigan_qp_only_not_at_all():
    real, made = (score.detach() for score in scores())
    distance = torch.ones_like(real)
    assert torch.allclose(potential(real + 5 - (made + 5), distance), potential(real - made, distance))
    assert players_value("qp", real + 5, made + 5).item() == pytest.approx(
        players_value("qp", real, made).item()
    )
    assert critic_value(real + 5, made + 5) != critic_value(real, made)  # the control


@pytest.mark.parametrize(
    ("weight", "moved", "resting"),
    [("code_weight", "encoder", "generator"), ("example_weight", "generator", "encoder")],
)
def test_each_term_of_inversion_moves_one_network_only(weight, moved, resting):
    plain, weighed = ali(form="qp", encoder="point"), ali(form="qp", encoder="point", **{weight: 2.0})
    found = [
        [gradients(at(3, model.players_loss), getattr(model, name)) for name in (moved, resting)]
        for model in (plain, weighed)
    ]
    assert not same(found[0][0], found[1][0])
    assert same(found[0][1], found[1][1])


def test_the_terms_of_inversion_are_mean_squares():
    model = ali(form="qp", encoder="point", code_weight=2.0, example_weight=3.0)
    torch.manual_seed(3)
    loss = model.players_loss(batch())
    torch.manual_seed(3)
    pairs = model._pairs(batch())
    code = (model.encoder(pairs.made) - pairs.z).square().mean()
    example = (model.generator(pairs.code) - pairs.x).square().mean()
    expected = players_value("qp", *model._scores(pairs)) + 2 * code + 3 * example
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_each_player_reaches_its_own_networks(form):
    model = ali(form=form)
    critic, players = (update for phase in model.phases() for update in phase.updates)
    assert (critic.modules, players.modules) == ((model.critic,), (model.encoder, model.generator))
    assert set(gradients(critic.loss(batch()).value, model.encoder, model.generator)) == {None}
    reached = gradients(players.loss(batch()).value, model.encoder, model.generator)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in reached)


@pytest.mark.parametrize("form", ["label_swap", "qp"])
def test_the_critic_learns_to_score_real_pairs_above_made_ones(form):
    model = ali(form=form, encoder="point")
    torch.manual_seed(0)
    solver = torch.optim.Adam(model.critic.parameters(), 1e-3)
    for _ in range(30):
        solver.zero_grad()
        model.critic_loss(batch()).value.backward()
        solver.step()
    assert model.critic_loss(batch()).metrics["score_gap"] > 0.1


def test_the_critic_sees_the_code_and_the_class():
    model = ali(conditional=True, num_classes=3)
    x, z = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    one, other = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    found = model.critic(x, z, one)
    assert not torch.allclose(found, model.critic(x, z.roll(1, 0), one))
    assert not torch.allclose(found, model.critic(x, z, other))
    assert not torch.allclose(
        model.encode({"images": x, "labels": one}), model.encode({"images": x, "labels": other})
    )
    model.eval()
    made = [model.decode(z, {"labels": labels})["images"] for labels in (one, other)]
    assert not torch.allclose(*made)


class Affine(nn.Module):
    """scale · x, flat, in place of an encoder or a generator of points."""

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def forward(self, x, labels=None):
        return self.scale * x


def test_a_perfect_pair_of_networks_leaves_the_best_critic_nothing_to_see():
    """x ~ N(0, 2² I): with E(x) = x/2 and G(z) = 2 z both pairs have one distribution, so no linear critic earns anything."""
    torch.manual_seed(0)
    model = ALI(dim=2, architecture="mlp", encoder="point", latent_dim=2, width=4, feature_dim=4).double()
    x = 2 * torch.randn(20_000, 2, dtype=torch.float64)
    gaps = {}
    for scale in (0.5, 1.0):
        model.encoder, model.generator = Affine(scale), Affine(2.0)
        pairs = model._pairs({"points": x})
        product = lambda a, b: (a * b).sum(1).mean()
        gaps[scale] = (product(pairs.x, pairs.code) - product(pairs.made, pairs.z)).item()
    assert abs(gaps[0.5]) < 0.2
    assert gaps[1.0] > 3  # the control


def test_a_code_of_a_gaussian_encoder_is_its_mean():
    model = ali().eval()
    x = {"images": batch()["images"].double() / 255}
    mean, log_var = model._code(2 * x["images"] - 1, None)
    assert torch.equal(model.encode(x), mean)
    assert log_var is not None
    assert ali(encoder="point")._code(2 * x["images"] - 1, None)[1] is None


def test_the_forms_share_their_networks():
    states = [copy.deepcopy(ali(form=form).state_dict()) for form in FORMS]
    assert all(state.keys() == states[0].keys() for state in states)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"conditional": True}, "conditional: the data has no labels"),
        ({"shape": (1, 1, 1)}, "dcgan takes images of 8×8 or more, not 1×1; take mlp"),
        ({"shape": None}, "the data must be images or points"),
        ({"scale": 10.0}, "network.scale has no effect on the form label_swap"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes, line):
    with pytest.raises(BadInput, match=line) as error:
        ali(**changes)
    assert "\n" not in str(error.value)
