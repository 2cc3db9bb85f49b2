import numpy as np
import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.models.couplet import Couplet
from genpipe.models.nice import NICE
from genpipe.models.ogan import OGAN, correlation
from genpipe.nn.gated import GatedResidualConv
from genpipe.sampling import decoding
from tests import tiny


def batch(n=8, side=8):
    return {"images": torch.randint(0, 256, (n, 1, side, side), dtype=torch.uint8)}


def test_nice_moves_every_pixel_by_every_other():
    model = NICE(image_shape=(1, 2, 3), hidden_dim=16, num_hidden=1).double()
    jacobian = torch.autograd.functional.jacobian(
        lambda x: model({"images": x})[0], torch.rand(1, 1, 2, 3).double()
    )
    assert (jacobian.flatten(1) != 0).all()


def test_nice_samples_from_the_prior_of_its_density():
    """With all shifts 0 and scale 1 a sample is the prior itself: the logistic has variance π²/3."""
    model = NICE(image_shape=(1, 8, 8), num_couplings=2)
    with torch.no_grad():
        for coupling in model.couplings:
            nn.init.zeros_(coupling.shift[-1].weight)
            nn.init.constant_(coupling.shift[-1].bias, -0.5)
    drawn = model.sample(2000, {}, temperature=0.01)["images"]
    noise = drawn - model.inverse(torch.zeros(1, 64), {})["images"]
    assert noise.var().item() == pytest.approx(0.01**2 * np.pi**2 / 3, rel=0.05)


def test_the_ogan_correlation_is_pearsons_and_free_of_mean_and_scale():
    z, code = torch.randn(2, 5, 16).double().unbind()
    code.requires_grad_()
    rho = correlation(z, code)
    assert np.allclose(
        rho.detach(), [np.corrcoef(a, b)[0, 1] for a, b in zip(z, code.detach(), strict=True)], atol=1e-7
    )
    assert torch.allclose(correlation(z, 3 * z + 2), torch.ones(5).double(), atol=1e-7)
    (gradient,) = torch.autograd.grad(rho.sum(), code)
    assert gradient.sum(1).abs().max() < 1e-7  # the critic, the mean of the code, feels nothing of it
    assert (gradient * (code - code.mean(1, keepdim=True))).sum(1).abs().max() < 1e-7


def test_the_single_loss_of_ogan_has_the_gradients_of_two_losses():
    model = OGAN(image_shape=(1, 8, 8), latent_dim=8, width=4, correlation_weight=0).double()
    real = batch()

    def gradients(loss, module):
        return torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)

    torch.manual_seed(0)
    single = model.single_loss(real).value
    torch.manual_seed(0)
    fake = model.generator(torch.randn(8, 8, dtype=torch.float64))
    x = real["images"].double() / 127.5 - 1
    gap = model.encoder(x).mean(1) - model.encoder(fake.detach()).mean(1)
    distance = (x - fake.detach()).square().flatten(1).mean(1)
    critic = (gap.square() / (4 * distance) - gap).mean()
    generator = -model.encoder(fake).mean(1).mean()
    for loss, module in ((critic, model.encoder), (generator, model.generator)):
        for mine, separate in zip(gradients(single, module), gradients(loss, module), strict=True):
            assert torch.allclose(mine, separate, atol=1e-12)


def test_ogan_learns_to_score_real_above_fake():
    torch.manual_seed(0)
    model = OGAN(image_shape=(1, 8, 8), latent_dim=8, width=4)
    solver = torch.optim.Adam(model.encoder.parameters(), 1e-3)
    for _ in range(20):
        solver.zero_grad()
        model.single_loss(batch()).value.backward()
        solver.step()
    assert model.single_loss(batch()).metrics["score_gap"] > 0


def test_ogan_refuses_two_latent_dimensions():
    with pytest.raises(BadInput, match="latent_dim: must be 3 or more"):
        OGAN(image_shape=(1, 8, 8), latent_dim=2)


def test_the_gate_is_convex():
    layer = GatedResidualConv(4)
    x = torch.rand(2, 4, 9)
    gate, new = layer.conv(x).chunk(2, dim=1)
    assert torch.allclose(layer(x), x * gate.sigmoid() + new * (-gate).sigmoid(), atol=1e-6)


def test_a_couplet_character_sees_six_to_either_side():
    model = Couplet(num_tokens=20, embedding_dim=8, num_layers=6).eval()
    model.embedding.weight.requires_grad_(False)
    tokens = torch.randint(0, 20, (1, 21))
    x = model.embedding(tokens).transpose(1, 2).requires_grad_()
    out = model.layers(x)[0, :, 10].sum()
    (gradient,) = torch.autograd.grad(out, x)
    seen = gradient[0].abs().sum(0).nonzero().flatten().tolist()
    assert seen == list(range(4, 17))


def test_the_density_of_nice_integrates_to_one():
    model = NICE(image_shape=(1, 1, 2), hidden_dim=8, num_hidden=1).double()
    with torch.no_grad():
        model.log_scale.fill_(0.5)
    side = torch.linspace(-30, 30, 1201, dtype=torch.float64)
    x = torch.cartesian_prod(side, side).view(-1, 1, 1, 2)
    with torch.no_grad():
        total = model.log_prob({"images": x}).exp().sum() * (side[1] - side[0]) ** 2
    assert abs(total - 1) < 1e-3


def test_an_answer_never_repeats_its_character_nor_is_forbidden(tmp_path):
    model = tiny.recipe_of("couplet", tiny.data_for("couplet", tmp_path)).eval()
    source = torch.randint(2, len(tiny.TOKENS), (30, 7))
    made = decoding.answer(model, {"source": source}, {0, 1})
    assert not (made == source).any()
    assert (made > 1).all()
