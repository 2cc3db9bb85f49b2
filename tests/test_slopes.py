"""Gradients that are written out, against autograd."""

import pytest
import torch
from torch import nn

from genpipe.models.energy import EnergyModel
from genpipe.nn.langevin import by_autograd
from genpipe.nn.slopes import slope


def network(channels, kernel, stride, padding):
    size = nn.Conv2d(channels, 5, kernel, stride, padding)(torch.zeros(1, channels, 9, 12)).numel()
    return nn.Sequential(
        nn.Conv2d(channels, 5, kernel, stride, padding),
        nn.SiLU(),
        nn.Conv2d(5, 5, 3, padding=1, bias=False),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(size, 7),
        nn.SiLU(),
        nn.Linear(7, 1, bias=False),
        nn.Flatten(0),
    ).double()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(4, 2, 1), (3, 2, 1), ((3, 2), (1, 3), (2, 0)), (1, 1, 0)]
)
@pytest.mark.parametrize("n", [1, 6])
def test_a_slope_is_the_gradient_of_each_row_by_that_row(channels, kernel, stride, padding, n):
    torch.manual_seed(0)
    layers = network(channels, kernel, stride, padding)
    x = torch.randn(n, channels, 9, 12).double()
    found = slope(layers)(x)
    assert found.shape == x.shape
    assert torch.allclose(found, by_autograd(layers)(x), atol=1e-13, rtol=1e-11)
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in layers.parameters())


def test_a_layer_whose_slope_is_not_written_out_is_named():
    with pytest.raises(TypeError, match="the slope of ReLU is not written out"):
        slope(nn.Sequential(nn.Linear(2, 1), nn.ReLU()))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12)])
def test_samples_are_the_ends_of_the_chains_that_autograd_makes(shape):
    torch.manual_seed(0)
    model = EnergyModel(shape, width=4, num_replay=16).double().eval()
    torch.manual_seed(1)
    found = model.sample(10, {}, steps=5)["images"]
    torch.manual_seed(1)
    starts = model._values(model.replay[torch.randint(16, (10,))])
    expected = model._ends(starts, None, 5)
    assert torch.allclose(found, expected, atol=1e-12)
    assert (found - starts).abs().mean() > 0.001
