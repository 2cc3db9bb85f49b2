"""Invertible residual networks: norms, log-determinants, inverses and densities, against dense matrices and grids."""

import copy
import itertools
import math

import pytest
import torch
from safetensors.torch import load, save

from genpipe.errors import BadInput
from genpipe.models.residual_flow import Affine, ResidualFlow
from genpipe.nn.contractions import BoundedConv, LipSwish, ResidualBlock, fixed_point, steps_to
from genpipe.nn.log_determinants import series_error


def stirred(model, seed=0):
    """Weights that reach their bounds, scales and shifts that are not those of a start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_((0.5 if "weight" in name else 0.1) * torch.randn_like(parameter))
    for _ in range(30):  # as training does after each step
        model.follow()
    return model


def images_flow(**changes):
    torch.manual_seed(1)
    made = ResidualFlow(image_shape=(1, 4, 4), num_stages=2, num_blocks=2, width=6, **changes)
    return stirred(made.double()).eval()


def plane_flow(**changes):
    torch.manual_seed(1)
    return stirred(ResidualFlow(dim=2, num_blocks=4, width=16, **changes).double()).eval()


def values(n=3, side=4, channels=1):
    return {"images": torch.rand(n, channels, side, side, dtype=torch.float64)}


def jacobian_log_det(model, one):
    """Of one example, in a dictionary."""
    ((key, x),) = one.items()
    jacobian = torch.autograd.functional.jacobian(lambda v: model.forward({key: v})[0][0], x)
    return torch.linalg.slogdet(jacobian.flatten(1)).logabsdet.item()


def dense(conv):
    """The matrix of a bounded convolution, without its bias, [outputs, inputs]."""
    _, channels, *size = conv.u.shape
    number = channels * math.prod(size)
    apply, zero = conv.frozen(), torch.zeros(1, channels, *size, dtype=conv.u.dtype)
    with torch.no_grad():
        units = torch.eye(number, dtype=conv.u.dtype).view(number, channels, *size)
        return (apply(units) - apply(zero)).flatten(1).T


@pytest.mark.parametrize("size", [(5, 5), (4, 7), (1, 1)])
def test_a_bounded_convolution_has_the_coefficient_as_its_largest_singular_value(size):
    torch.manual_seed(0)
    conv = BoundedConv((3, *size), 5, 1 if size == (1, 1) else 3, 0.7).double().eval()
    with torch.no_grad():
        conv.weight.mul_(10)
    assert torch.linalg.svdvals(dense(conv))[0].item() == pytest.approx(0.7, rel=1e-3)
    with torch.no_grad():
        conv.weight.mul_(1e-3)  # below the coefficient nothing is divided
    assert torch.equal(
        conv.frozen()(torch.zeros_like(conv.u)),
        conv.bias[None, :, None, None] + 0 * conv.frozen()(torch.zeros_like(conv.u)),
    )
    plain = conv._map(torch.ones_like(conv.u), conv.weight) + conv.bias[:, None, None]
    assert torch.equal(conv.frozen()(torch.ones_like(conv.u)), plain)


def test_the_norm_follows_the_weights_after_each_step_and_a_pass_moves_nothing():
    torch.manual_seed(0)
    conv = BoundedConv((2, 5, 5), 3, 3, 0.9).double().train()
    with torch.no_grad():
        conv.weight.copy_(torch.randn_like(conv.weight))
    before = conv.u.clone()
    stale = conv.norm().item()
    assert torch.equal(conv.u, before)
    for _ in range(40):
        conv.follow()
    true = torch.linalg.svdvals(dense(conv))[0].item() / 0.9 * conv.norm().item()
    assert stale < conv.norm().item() <= true * (1 + 1e-9)
    assert torch.linalg.svdvals(dense(conv))[0].item() == pytest.approx(0.9, rel=1e-3)


def test_lipswish_is_no_steeper_than_1():
    swish = LipSwish()
    for raw in (-3.0, 0.5, 4.0):
        with torch.no_grad():
            swish.raw.fill_(raw)
        x = torch.linspace(-60, 60, 20001, requires_grad=True)
        (slope,) = torch.autograd.grad(swish(x).sum(), x)
        assert 0.99 < slope.abs().max().item() <= 1


def test_a_block_is_a_contraction_by_its_bound():
    torch.manual_seed(0)
    block = stirred(ResidualBlock((2, 4, 4), 8, 0.9, "elu").double()).eval()
    g = block.residual()
    jacobian = torch.autograd.functional.jacobian(g, torch.randn(1, 2, 4, 4).double()).view(32, 32)
    assert 0.05 < torch.linalg.matrix_norm(jacobian, 2).item() <= 0.9


@pytest.mark.parametrize("activation", ["elu", "lipswish"])
def test_the_exact_log_determinant_is_that_of_the_jacobian(activation):
    model, x = images_flow(exact_dim=16, activation=activation), values()
    assert model.tightness == "exact"
    _, found = model.forward(x)
    for row in range(3):
        one = {"images": x["images"][row : row + 1]}
        assert found[row].item() == pytest.approx(jacobian_log_det(model, one), abs=1e-8)
    plane = plane_flow()
    point = {"points": torch.randn(1, 2, dtype=torch.float64)}
    assert plane.tightness == "exact"
    assert plane.forward(point)[1].item() == pytest.approx(jacobian_log_det(plane, point), abs=1e-8)


def test_the_estimate_in_evaluation_has_the_exact_mean_within_the_bound_of_its_series():
    """Each of 4000 copies that differ in the last digits has its own probes."""
    model = images_flow(eval_terms=12)
    exact = images_flow(exact_dim=16)
    assert model.tightness == "estimate"
    x = values(1)["images"] + 1e-9 * torch.arange(4000, dtype=torch.float64).view(-1, 1, 1, 1)
    with torch.no_grad():
        found, true = (each.forward({"images": x})[1] for each in (model, exact))
    error = found - true
    allowed = 4 * series_error(0.9, 12, 16) + 4 * error.std().item() / math.sqrt(len(error))
    assert error.std().item() > 0.05
    assert abs(error.mean().item()) < min(allowed, 0.05)


@pytest.mark.parametrize("kind", ["series", "roulette"])
def test_the_estimate_in_training_has_the_exact_mean(kind):
    """The roulette with one sure term; the series with as many as leave nothing over."""
    num_terms = 1 if kind == "roulette" else 14
    model = images_flow(log_det=kind, num_terms=num_terms, coefficient=0.5).train()
    exact = images_flow(exact_dim=16, coefficient=0.5)
    x = {"images": values(1)["images"].expand(200, 1, 4, 4)}
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([model.forward(x)[1].mean() for _ in range(40)])
        true = exact.forward({"images": x["images"][:1]})[1].item()
    assert abs(found.mean().item() - true) < 4 * found.std().item() / math.sqrt(40)


def test_the_gradient_of_the_loss_is_that_of_the_exact_one_in_the_mean():
    batch = {"images": torch.randint(0, 256, (1, 1, 2, 2), dtype=torch.uint8)}
    many = {"images": batch["images"].expand(400, 1, 2, 2)}
    gradients = {}
    for kind in ("roulette", "exact"):
        torch.manual_seed(1)
        model = stirred(
            ResidualFlow(image_shape=(1, 2, 2), num_blocks=1, width=4, log_det=kind, num_terms=2).double()
        )
        weight = model.layers[2].convolutions[0].weight
        found = []
        for seed in range(60 if kind == "roulette" else 4):
            torch.manual_seed(seed)
            found.append(torch.autograd.grad(model.negative_log_likelihood(many).value, weight)[0])
        gradients[kind] = torch.stack(found)
    error = gradients["roulette"].mean(0) - gradients["exact"].mean(0)
    assert (error.abs() < 5 * gradients["roulette"].std(0) / math.sqrt(60) + 1e-3).all()


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("n", [1, 1000])
def test_the_inverse_inverts_points_and_images(dtype, most, n):
    for model, x in (
        (plane_flow(), {"points": 2 * torch.randn(n, 2, dtype=torch.float64)}),
        (images_flow(), values(n)),
    ):
        given = {key: value.to(dtype) for key, value in x.items()}
        model.to(dtype)
        with torch.no_grad():
            z, log_det = model.forward(given)
            made = model.inverse(z, {})
            assert model.log_prob(given).shape == (n,)
        for key, value in made.items():
            assert z.dtype == log_det.dtype == value.dtype == dtype
            assert (value - given[key]).abs().max().item() <= most


def test_colour_images_of_32_by_32_have_a_density_and_an_inverse():
    torch.manual_seed(0)
    model = ResidualFlow(image_shape=(3, 32, 32), num_blocks=1, width=8, eval_terms=3).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        z, _ = model.forward({"images": x})
        assert z.shape == (2, 3072)
        assert (model.inverse(z, {})["images"] - x).abs().max().item() <= 1e-5
        assert model.sample(2, {})["images"].shape == (2, 3, 32, 32)


def test_a_fixed_point_is_as_near_as_its_bound_says_and_rows_do_not_wait_for_each_other():
    torch.manual_seed(0)
    block = stirred(ResidualBlock((2, 3, 3), 6, 0.8, "elu").double()).eval()
    x = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        y = x + block.residual()(x)
    x[0] *= 100
    with torch.no_grad():
        y[0] = (x + block.residual()(x))[0]
    together = block.inverse(y)
    assert (
        (together.x - x).flatten(1).norm(dim=1) <= together.error + 1e-12 * (1 + x.flatten(1).norm(dim=1))
    ).all()
    for row in range(6):
        assert torch.allclose(block.inverse(y[row : row + 1]).x[0], together.x[row], atol=1e-14, rtol=1e-13)


def test_the_error_after_n_steps_is_that_of_the_contraction():
    """x ↦ x + c x: the first step is c y long, and each further one c times as long as the one before."""
    c, y = 0.5, torch.ones(1, 1, dtype=torch.float64)
    found = fixed_point(lambda x: c * x, y, c)
    assert found.x.item() == pytest.approx(1 / 1.5, abs=found.error.item() + 1e-15)
    assert [steps_to(1e-6, bound) for bound in (0.5, 0.7, 0.9)] == [21, 43, 153]


def test_rounding_that_keeps_a_contraction_moving_is_no_error():
    """Each step is off by one rounding, up and down in turn; the answer is as near as it says."""
    eps, y, c = torch.finfo(torch.float32).eps, torch.ones(1, 1), 0.95
    signs = itertools.cycle((1, -1))
    found = fixed_point(lambda x: c * x + next(signs) * eps, y, c)
    assert found.num_steps == 2 * steps_to(eps, c)
    assert 0 < abs(found.x.item() - 1 / (1 + c)) <= found.error.item() < 2e-4


@pytest.mark.parametrize("slope", [1.0, -2.0, math.nan, math.inf])
def test_what_is_no_contraction_is_refused_and_not_inverted_wrongly(slope):
    with pytest.raises(BadInput, match=r"does not converge: after .* no contraction by 0\.9"):
        fixed_point(lambda x: slope * x, torch.ones(2, 3), 0.9)


def test_norms_that_move_between_the_two_ways_would_spoil_the_inverse():
    """What evaluation must not do: the weights of the way there and of the way back are those of other norms."""
    model = plane_flow()
    x = {"points": torch.randn(50, 2, dtype=torch.float64)}
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        z, _ = model.forward(x)
        again, _ = model.forward(x)
        assert torch.equal(z, again)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        block = next(layer for layer in model.layers if isinstance(layer, ResidualBlock))
        block.convolutions[0].coefficient *= 0.99
        assert (model.inverse(z, {})["points"] - x["points"]).abs().max().item() > 1e-4


def test_the_log_density_is_the_same_after_saving_and_loading():
    for model, x in (
        (images_flow(), values()),
        (plane_flow(), {"points": torch.randn(9, 2, dtype=torch.float64)}),
    ):
        fresh = (
            ResidualFlow(image_shape=(1, 4, 4), num_stages=2, num_blocks=2, width=6)
            if "images" in x
            else ResidualFlow(dim=2, num_blocks=4, width=16)
        )
        fresh.double().eval().load_state_dict(load(save(model.state_dict())))
        with torch.no_grad():
            first = model.log_prob(x)
            assert torch.equal(first, model.log_prob(x))
            assert torch.equal(first, fresh.log_prob(x))


def test_densities_in_the_plane_integrate_to_one():
    model, side = plane_flow(), 300
    steps = 20 * (2 * (torch.arange(side, dtype=torch.float64) + 0.5) / side - 1)
    points = torch.cartesian_prod(steps, steps)
    with torch.no_grad():
        found = model.log_prob({"points": points}).view(side, side)
    assert found.exp().sum().item() * (40 / side) ** 2 == pytest.approx(1, abs=1e-3)
    edge = torch.cat([found[0], found[-1], found[:, 0], found[:, -1]])
    assert edge.max().item() < -12  # nothing of the mass is outside


def test_a_density_of_one_pixel_integrates_to_one_through_the_logit():
    torch.manual_seed(0)
    model = stirred(ResidualFlow(image_shape=(1, 1, 1), num_blocks=2, width=8, margin=0.05).double()).eval()
    x = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    with torch.no_grad():
        inside = model.log_prob({"images": x.view(-1, 1, 1, 1)}).exp().mean().item()
        ends = model.forward({"images": torch.tensor([0.0, 1.0]).double().view(2, 1, 1, 1)})[0]
    normal = torch.distributions.Normal(0.0, 1.0)
    assert inside == pytest.approx((normal.cdf(ends[1]) - normal.cdf(ends[0])).abs().item(), abs=1e-4)


def test_black_and_white_pixels_have_finite_densities_and_lose_no_digits():
    model = ResidualFlow(image_shape=(1, 4, 4), num_blocks=1, width=4).eval()
    x = torch.zeros(2, 1, 4, 4)
    x[1] = 1 - 2**-24
    with torch.no_grad():
        found = model.log_prob({"images": x})
        z, _ = model.forward({"images": x})
        assert (model.inverse(z, {})["images"] - x).abs().max() <= 1e-6
    assert found.isfinite().all()


def test_the_first_batch_sets_scales_and_shifts_once():
    torch.manual_seed(0)
    model = ResidualFlow(image_shape=(1, 8, 8), num_blocks=2, width=4)
    batches = [{"images": torch.randint(0, 256, (400, 1, 8, 8), dtype=torch.uint8)}]
    torch.manual_seed(5)
    model.prepare(iter(batches))
    torch.manual_seed(5)
    with torch.no_grad():
        z, _ = model.eval().forward({"images": model._observed(batches[0])})
    assert z.mean(0).abs().max().item() < 1e-3
    assert (z.std(0, correction=0) - 1).abs().max().item() < 1e-2
    scales = [layer for layer in model.layers if isinstance(layer, Affine)]
    assert len(scales) == 5
    assert all(scale.log_scale.abs().max() > 0 for scale in scales)


def test_samples_come_from_the_prior_of_the_density():
    """The mean of −ln p over samples at temperature 1 is the entropy; the same numbers give both."""
    model = plane_flow()
    torch.manual_seed(0)
    made = model.sample(1000, {})
    torch.manual_seed(0)
    z = torch.randn(1000, 2, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(model.forward(made)[0], z, atol=1e-9)
    torch.manual_seed(0)
    half = model.sample(1000, {}, temperature=0.5)
    with torch.no_grad():
        assert torch.allclose(model.forward(half)[0], z / 2, atol=1e-9)


def test_the_sides_that_cannot_be_halved_stay():
    model = ResidualFlow(image_shape=(1, 6, 6), num_stages=3, num_blocks=1, width=4).double().eval()
    assert model.latent_shape == (4, 3, 3)
    x = values(2, side=6)
    with torch.no_grad():
        assert torch.allclose(model.inverse(model.forward(x)[0], {})["images"], x["images"], atol=1e-10)
