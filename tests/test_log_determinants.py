"""Traces and log-determinants from products, against dense matrices in double precision."""

import doctest
import math

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.nn import log_determinants
from genpipe.nn.log_determinants import (
    Operator,
    exact,
    hutchinson_trace,
    log_abs_det,
    number_of_terms,
    probes,
    roulette,
    roulette_weights,
    series,
    series_error,
    weighted_series,
)


def matrices(n=3, dim=6, norm=0.5, seed=0):
    """[n, dim, dim] with this 2-norm each."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, dim, dim, dtype=torch.float64, generator=generator)
    return norm * a / torch.linalg.matrix_norm(a, 2)[:, None, None]


def truth(a):
    return torch.linalg.slogdet(torch.eye(a.shape[-1], dtype=a.dtype) + a).logabsdet


def basis(a):
    """As many probes as dimensions, with the mean of vᵀAv exactly the trace."""
    n, dim, _ = a.shape
    return math.sqrt(dim) * torch.eye(dim, dtype=a.dtype)[:, None].expand(dim, n, dim)


def test_the_example_of_the_module_is_right():
    torch.manual_seed(0)
    assert doctest.testmod(log_determinants).failed == 0


def test_the_determinant_of_an_exponential_is_the_exponential_of_the_trace():
    a = matrices(norm=3.0)
    assert torch.allclose(
        log_abs_det(torch.linalg.matrix_exp(a)), a.diagonal(dim1=1, dim2=2).sum(1), atol=1e-12
    )


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7])
def test_the_exact_one_is_that_of_the_matrix(dim):
    a = matrices(dim=dim, norm=2.5, seed=dim)
    assert torch.allclose(exact(Operator.of_matrix(a), dim, a[:, 0]), truth(a), atol=1e-12)


def test_the_exact_one_of_a_map_is_that_of_its_jacobian():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ELU(), nn.Conv2d(4, 2, 3, padding=1)).double()
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    found = exact(Operator.of_map(x, net(x), math.inf), 18, x)
    for row in range(2):
        jacobian = torch.autograd.functional.jacobian(net, x[row : row + 1].detach()).view(18, 18)
        assert found[row].item() == pytest.approx(truth(jacobian[None]).item(), abs=1e-12)


@pytest.mark.parametrize("norm", [0.5, 0.9])
def test_the_error_of_the_series_is_within_its_bound_and_falls(norm):
    a = matrices(norm=norm)
    errors = []
    for num_terms in (1, 5, 10, 20):
        error = (series(Operator.of_matrix(a), basis(a), num_terms) - truth(a)).abs().max().item()
        assert error <= series_error(norm, num_terms, 6)
        errors.append(error)
    assert errors == sorted(errors, reverse=True)


def test_the_bound_of_the_series_is_reached_by_a_multiple_of_the_identity():
    a = -0.9 * torch.eye(4, dtype=torch.float64)[None]
    error = (series(Operator.of_matrix(a), basis(a), 5) - truth(a)).abs().item()
    assert error == pytest.approx(series_error(0.9, 5, 4), abs=1e-12)
    assert series_error(0.9, 5, 1) == pytest.approx(0.472, abs=5e-4)


@pytest.mark.parametrize("norm", [1.0, 1.5, math.nan])
def test_a_norm_of_1_or_more_is_refused(norm):
    a = matrices()
    operator = Operator.of_matrix(a)._replace(bound=norm)
    for estimate in (series, roulette):
        with pytest.raises(BadInput, match="needs a norm of A below 1"):
            estimate(operator, basis(a), 3)


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_hutchinsons_trace_has_its_mean_and_its_variance(distribution):
    torch.manual_seed(1)
    a = matrices(1)
    s = (a + a.mT)[0] / 2
    off = s.square().sum() - (s.diagonal().square().sum() if distribution == "rademacher" else 0)
    v = probes(200_000, a[0, :1], distribution).transpose(0, 1)  # one probe an example
    many = Operator(lambda w: w @ a[0], 1.0)
    found = hutchinson_trace(many, v)
    assert found.mean().item() == pytest.approx(a[0].trace().item(), abs=4 * math.sqrt(2 * off.item() / 2e5))
    assert found.var().item() == pytest.approx(2 * off.item(), rel=0.03)


def test_signs_vary_less_than_gaussians_where_the_diagonal_dominates():
    a = 0.5 * torch.eye(5, dtype=torch.float64)[None]
    operator = Operator.of_matrix(a)
    assert hutchinson_trace(operator, probes(1, a[:, 0])).item() == pytest.approx(2.5, abs=1e-12)
    assert hutchinson_trace(operator, probes(1, a[:, 0], "gaussian")).item() != pytest.approx(2.5, abs=1e-3)


def test_the_mean_of_the_roulette_over_all_lengths_is_the_whole_series():
    a = matrices(norm=0.7)
    operator, v, goes_on, num_exact = Operator.of_matrix(a), basis(a), 0.6, 2
    mean = torch.zeros(3, dtype=torch.float64)
    for more in range(90):
        value = weighted_series(operator, v, roulette_weights(num_exact, more, goes_on))
        mean += (goes_on**more - goes_on ** (more + 1)) * value
    assert torch.allclose(mean, truth(a), atol=1e-9)


def test_draws_of_the_roulette_have_the_mean_that_a_series_of_as_many_terms_misses():
    a = matrices(norm=0.7)
    operator, v, goes_on, num_exact = Operator.of_matrix(a), basis(a), 0.5, 2
    torch.manual_seed(0)
    found = torch.stack([roulette(operator, v, num_exact, goes_on) for _ in range(1500)])
    deviation = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - truth(a)).abs() < 4 * deviation).all()
    assert ((series(operator, v, num_exact + 1) - truth(a)).abs() > 8 * deviation).any()


def test_the_number_of_terms_has_the_probabilities_by_which_terms_are_divided():
    u = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    lengths = torch.tensor([number_of_terms(x, 0.5) for x in u.tolist()])
    for j in range(6):
        assert (lengths >= j).double().mean().item() == pytest.approx(0.5**j, abs=1 / 4096)


def test_the_gradient_of_the_series_is_that_of_the_log_determinant():
    torch.manual_seed(0)
    weight = (0.3 * torch.randn(3, 3, dtype=torch.float64)).requires_grad_()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tanh(x @ weight) / 2
    operator = Operator.of_map(x, y, 0.9, create_graph=True)
    v = basis(torch.zeros(4, 3, 3, dtype=torch.float64))
    found = [
        torch.autograd.grad(value.sum(), weight, retain_graph=True)[0]
        for value in (series(operator, v, 60), exact(operator, 3, x))
    ]
    assert torch.allclose(found[0], found[1], atol=1e-9)


def test_a_coin_that_always_or_never_goes_on_is_refused():
    a = matrices()
    for goes_on in (0.0, 1.0):
        with pytest.raises(BadInput, match="goes_on: must be between 0 and 1"):
            roulette(Operator.of_matrix(a), basis(a), 2, goes_on)
