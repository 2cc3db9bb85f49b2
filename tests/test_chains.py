"""Langevin chains and measures of information against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genpipe.nn.chains import Place, langevin, log_acceptance, mala, place
from genpipe.nn.information import code_loss, information_of_codes, information_of_pairs, pairs_loss


def gaussian(variance):
    """The energy of N(0, variance), and points drawn from it."""
    return lambda z: z.square().sum(1) / (2 * variance)


@pytest.mark.parametrize(("variance", "step"), [(1.0, 0.5), (1.0, 1.0), (2.0, 0.5)])
def test_unadjusted_chains_of_a_gaussian_have_a_variance_that_is_too_large(variance, step):
    """z' = (1 − ε/2s²) z + √ε ξ is stationary at s²/(1 − ε/4s²). With √(2ε) for the noise it would be twice that."""
    torch.manual_seed(0)
    start = math.sqrt(variance) * torch.randn(60_000, 1, dtype=torch.float64)
    end = langevin(gaussian(variance), start, 60, step).z
    assert end.var().item() == pytest.approx(variance / (1 - step / (4 * variance)), rel=0.02)


ACCEPTANCE = {0.5: 0.97, 1.0: 0.92, 1.5: 0.86}


@pytest.mark.parametrize("step", ACCEPTANCE)
def test_adjusted_chains_keep_a_gaussian_whatever_their_step(step):
    """With the density of proposals that the article prints the variance at these steps is 0.67, 1.33 and 2.01."""
    torch.manual_seed(0)
    end = mala(gaussian(1.0), torch.randn(60_000, 1, dtype=torch.float64), 60, step)
    assert end.z.var().item() == pytest.approx(1, rel=0.02)
    assert end.acceptance.mean().item() == pytest.approx(ACCEPTANCE[step], abs=0.006)


def test_adjusted_chains_find_a_gaussian_from_elsewhere():
    torch.manual_seed(0)
    end = mala(gaussian(1.0), torch.full((20_000, 1), 3.0, dtype=torch.float64), 60, 1.0)
    assert end.z.mean().item() == pytest.approx(0, abs=0.03)
    assert end.z.var().item() == pytest.approx(1, rel=0.04)


@pytest.mark.parametrize("step", [0.1, 0.7, 2.0])
def test_the_acceptance_on_a_gaussian_has_a_closed_form(step):
    """ln π(z') q(z|z')/(π(z) q(z'|z)) = ε (‖z‖² − ‖z'‖²)/8 for π = N(0, I)."""
    at, to = (place(gaussian(1.0), torch.randn(50, 3, dtype=torch.float64)) for _ in range(2))
    expected = step * (at.z.square().sum(1) - to.z.square().sum(1)) / 8
    assert torch.allclose(log_acceptance(at, to, step), expected, atol=1e-12)
    assert torch.allclose(log_acceptance(to, at, step), -expected, atol=1e-12)


def log_proposal(z, to, gradient, step):
    """The Gaussian density of a proposal, by torch.distributions."""
    there = torch.distributions.Normal(z - step / 2 * gradient, math.sqrt(step))
    return there.log_prob(to).sum(1)


def test_the_acceptance_is_the_ratio_of_flows_there_and_back():
    def energy(z):
        return (z.square().sum(1) - 1).square() + z[:, 0].sin()

    at, to = (place(energy, torch.randn(50, 2, dtype=torch.float64)) for _ in range(2))
    there = -at.energy + log_proposal(at.z, to.z, at.gradient, 0.3)
    back = -to.energy + log_proposal(to.z, at.z, to.gradient, 0.3)
    assert torch.allclose(log_acceptance(at, to, 0.3), back - there, atol=1e-10)


def test_a_proposal_whose_energy_is_no_number_is_not_taken():
    def energy(z):
        return torch.where(z[:, 0] > 0, z.square().sum(1) / 2, torch.nan)

    torch.manual_seed(0)
    end = mala(energy, torch.rand(500, 1, dtype=torch.float64), 30, 0.5)
    assert (end.z > 0).all()
    assert 0 < end.acceptance.mean() < 1


def test_a_chain_moves_no_parameter_and_lets_no_gradient_through():
    layer = nn.Linear(2, 1).double()
    start = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    for chain in (langevin, mala):
        with torch.no_grad():
            end = chain(lambda z: layer(z).square().squeeze(1), start, 3, 0.1).z
        assert not end.requires_grad
        assert layer.weight.grad is None
        assert layer.weight.requires_grad
        assert not torch.equal(end, start)


def test_a_place_holds_the_gradient_of_its_energy():
    z = torch.randn(5, 3, dtype=torch.float64)
    found = place(lambda z: z.pow(3).sum(1), z)
    assert isinstance(found, Place)
    assert torch.allclose(found.gradient, 3 * z.square(), atol=1e-14)


# what x = a z + s ξ tells of z: I(x; z) = ln(1 + a²/s²)/2 nats, and H(x) = I + ln(2πe s²)/2


def channel(a, s, n):
    torch.manual_seed(0)
    z = torch.randn(n, 1, dtype=torch.float64)
    return a * z + s * torch.randn(n, 1, dtype=torch.float64), z


def log_odds(x, z, a, s):
    """ln p(x, z)/(p(x) p(z)), [n]."""
    given = torch.distributions.Normal(a * z, s).log_prob(x)
    return (given - torch.distributions.Normal(0.0, math.hypot(a, s)).log_prob(x)).squeeze(1)


CHANNELS = [(0.5, 1.0), (1.0, 0.5), (2.0, 0.3)]


@pytest.mark.parametrize(("a", "s"), CHANNELS)
def test_what_the_best_linear_reader_finds_is_the_information_of_a_gaussian_channel(a, s):
    x, z = channel(a, s, 200_000)
    code = a / (a * a + s * s) * x
    assert information_of_codes(z, code).item() == pytest.approx(math.log1p(a * a / s / s) / 2, abs=0.01)
    assert code_loss(z, code).mean().item() == pytest.approx(s * s / (a * a + s * s), rel=0.02)


@pytest.mark.parametrize(("a", "s"), CHANNELS)
def test_the_log_odds_of_pairs_have_the_information_as_their_mean(a, s):
    x, z = channel(a, s, 200_000)
    entropy = information_of_pairs(log_odds(x, z, a, s)).item() + math.log(2 * math.pi * math.e * s * s) / 2
    assert entropy == pytest.approx(math.log(2 * math.pi * math.e * (a * a + s * s)) / 2, abs=0.02)


def test_no_reader_of_pairs_does_better_than_their_log_odds():
    """Among 1, x², z² and xz, of which the log-odds are made, the minimum of the loss is they."""
    a, s = 1.0, 0.7
    x, z = channel(a, s, 50_000)
    unrelated = z.roll(1, 0)
    weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def terms(z):
        return torch.cat([torch.ones_like(x), x.square(), z.square(), x * z], 1)

    def loss():
        return pairs_loss(terms(z) @ weights, terms(unrelated) @ weights).mean()

    assert loss().item() == pytest.approx(2 * math.log(2), abs=1e-12)
    solver = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver.step(closure)
    best = pairs_loss(log_odds(x, z, a, s), log_odds(x, unrelated, a, s)).mean().item()
    assert loss().item() == pytest.approx(best, abs=2e-4)
    found = information_of_pairs(terms(z) @ weights.detach()).item()
    assert found == pytest.approx(math.log1p(a * a / s / s) / 2, abs=0.03)


def test_reading_codes_pushes_a_generator_apart_only_where_the_reader_is_smooth():
    """min over w of E(z − w a z)² + λ w² = λ/(a² + λ) falls in |a|; without λ it is 0 for every a but 0."""
    torch.manual_seed(0)
    z = torch.randn(200_000, 1, dtype=torch.float64)
    smoothness, losses = 0.5, []
    for a in (0.5, 1.0, 2.0):
        w = a * z.square().mean() / (a * a * z.square().mean() + smoothness)
        loss = code_loss(z, w * a * z).mean() + smoothness * w * w
        assert loss.item() == pytest.approx(smoothness / (a * a + smoothness), rel=0.02)
        losses.append(loss.item())
        assert code_loss(z, (1 / a) * a * z).mean().item() < 1e-20
    assert losses == sorted(losses, reverse=True)
    assert np.all(np.diff(losses) < 0)
