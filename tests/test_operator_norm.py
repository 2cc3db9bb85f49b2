"""The largest singular value of a convolution, against the matrix of all that it does."""

import math

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.nn.networks import Critic
from genpipe.nn.operator_norm import note_input_sizes
from genpipe.training.weight_transforms import normalise

LAYERS = {
    "stride 1": (lambda: nn.Conv2d(3, 8, 3, padding=1, bias=False), (8, 8)),
    "halves": (lambda: nn.Conv2d(2, 5, 4, stride=2, padding=1, bias=False), (8, 6)),
    "odd sides": (lambda: nn.Conv2d(2, 3, 4, stride=2, padding=1, bias=False), (7, 9)),
    "groups": (lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, bias=False), (6, 6)),
}


def dense(layer, size):
    """The matrix of a convolution as a linear map of pictures, [outputs, inputs]."""
    number = layer.in_channels * math.prod(size)
    with torch.no_grad():
        columns = layer(torch.eye(number, dtype=layer.weight.dtype).view(number, layer.in_channels, *size))
    return columns.flatten(1).T


def largest(matrix):
    return torch.linalg.svdvals(matrix)[0].item()


def normalised(layer, size, rule, passes=300):
    torch.manual_seed(0)
    note_input_sizes(layer.float(), (layer.in_channels, *size))
    normalise(layer.double(), {"weight": rule})
    for _ in range(passes):
        _ = layer.weight
    return layer.eval()


@pytest.mark.parametrize("name", LAYERS)
def test_a_normalised_convolution_has_a_largest_singular_value_of_1(name):
    make, size = LAYERS[name]
    torch.manual_seed(1)
    layer = make()
    norm = largest(dense(layer, size))
    assert abs(norm - 1) > 0.05
    made = normalised(layer, size, "spectral_convolution")
    assert largest(dense(made, size)) == pytest.approx(1, abs=1e-4)
    original = made.parametrizations.weight.original
    assert torch.allclose(made.weight, original / norm, rtol=1e-4)


def test_the_norm_of_a_kernel_as_a_matrix_is_another_one():
    """Ones, 3×3, on 16×16: 3 as a matrix, (1 + 2 cos π/17)² as a convolution."""
    true = (1 + 2 * math.cos(math.pi / 17)) ** 2
    found = {}
    for rule in ("spectral", "spectral_convolution"):
        layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        nn.init.ones_(layer.weight)
        assert largest(dense(layer, (16, 16))) == pytest.approx(true, abs=1e-4)
        found[rule] = largest(dense(normalised(layer, (16, 16), rule), (16, 16)))
    assert found["spectral"] == pytest.approx(true / 3, abs=1e-6)
    assert found["spectral_convolution"] == pytest.approx(1, abs=1e-6)


def test_the_iteration_never_overestimates_and_comes_closer():
    torch.manual_seed(1)
    layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    true = largest(dense(layer.double(), (8, 8)))
    norms = []
    for passes in (0, 20, 300):
        fresh = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        fresh.load_state_dict(layer.state_dict())
        made = normalised(fresh, (8, 8), "spectral_convolution", passes)
        of = made.parametrizations.weight[0]
        norms.append(of.norm(made.parametrizations.weight.original.double()).item())
    assert norms == sorted(norms)
    assert norms[-1] <= true * (1 + 1e-6)


def test_the_gradient_counts_singular_vectors_as_constants():
    """∂L/∂W = (G − ⟨G, W/σ⟩ ∂σ/∂W) / σ, where ∂σ/∂W is that of ⟨v, W u⟩."""
    torch.manual_seed(1)
    layer = normalised(nn.Conv2d(2, 3, 3, padding=1, bias=False), (5, 5), "spectral_convolution")
    weight, of = layer.parametrizations.weight.original, layer.parametrizations.weight[0]
    g = torch.randn_like(weight)
    (found,) = torch.autograd.grad((g * layer.weight).sum(), [weight])
    sigma = of.norm(weight)
    (slope,) = torch.autograd.grad(sigma, [weight])
    right = (g - (g * weight / sigma).sum() * slope) / sigma
    assert torch.allclose(found, right, atol=1e-12)


def test_evaluation_moves_no_singular_vector():
    layer = normalised(nn.Conv2d(2, 3, 3, padding=1, bias=False), (5, 5), "spectral_convolution", 1)
    before = layer.weight.detach().clone()
    assert torch.equal(layer.weight, before)
    layer.train()
    assert not torch.equal(layer.weight, before)


def test_a_critic_with_all_layers_normalised_is_1_lipschitz():
    torch.manual_seed(2)
    x, y = torch.randn(2, 200, 1, 8, 8).unbind()
    steepest = {}
    for rule in ("spectral", "spectral_convolution"):
        critic = Critic("dcgan", (1, 8, 8), 8, 8)
        with torch.no_grad():
            for parameter in critic.parameters():
                parameter.fill_(1.0)  # all singular vectors in line: the bound is reached
        torch.manual_seed(0)
        normalise(critic, {"weight": rule})
        for _ in range(50):
            critic(x[:2])
        critic.eval()
        with torch.no_grad():
            near = x + 0.01 * y.abs()
            steepest[rule] = ((critic(near) - critic(x)) / (near - x).flatten(1).norm(dim=1)).max().item()
    assert steepest["spectral_convolution"] <= 1 + 1e-4
    assert steepest["spectral"] > 1 + 1e-2


def test_a_convolution_whose_pictures_have_no_known_size_is_refused():
    with pytest.raises(BadInput, match="does not say how large a picture it gets; take spectral"):
        normalise(nn.Sequential(nn.Conv2d(1, 2, 3)), {"weight": "spectral_convolution"})
