"""Exact tests of O-GAN: the parts of a code, the one loss beside two, its extension by classes, and its networks."""

import numpy as np
import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.models.ogan import OGAN, correlation, normalise

IMAGE = (1, 8, 8)


def images(n=6, shape=IMAGE):
    return {"images": torch.randint(0, 256, (n, *shape), dtype=torch.uint8), "labels": torch.arange(n) % 3}


def model(**changes):
    return OGAN(**{"image_shape": IMAGE, "latent_dim": 8, "width": 4, **changes}).double()


def conditional(**changes):
    return model(num_classes=3, conditional=True, **changes)


def gradients(value, module):
    return torch.autograd.grad(value, list(module.parameters()), retain_graph=True)


def seeded(loss, batch, seed=0):
    torch.manual_seed(seed)
    return loss(batch)


def test_a_code_is_its_mean_its_deviation_and_its_direction():
    """z = avg(z) 1 + std(z) N(z) with N(z) orthogonal to 1 and ‖N(z)‖² = its dimension: the population deviation."""
    z = torch.randn(5, 8).double()
    direction, mean, std = normalise(z), z.mean(1, keepdim=True), z.std(1, correction=0, keepdim=True)
    assert torch.allclose(mean + std * direction, z, atol=1e-7)
    assert direction.sum(1).abs().max() < 1e-12
    assert torch.allclose(direction.square().sum(1), torch.full((5,), 8.0).double(), atol=1e-6)


def test_the_distance_of_two_directions_is_their_correlation():
    """‖N(z) − N(c)‖² = 2 n (1 − ρ)."""
    z, code = torch.randn(2, 5, 8).double().unbind()
    distance = (normalise(z) - normalise(code)).square().sum(1)
    assert torch.allclose(distance, 16 * (1 - correlation(z, code)), atol=1e-6)


@pytest.mark.parametrize(("scale", "expected"), [(3.0, 1.0), (0.5, 1.0), (-2.0, -1.0)])
def test_the_correlation_of_an_affine_copy_is_the_sign_of_its_scale(scale, expected):
    z = torch.randn(5, 8).double()
    assert torch.allclose(correlation(z, scale * z + 7), torch.full((5,), expected).double(), atol=1e-6)


def test_the_gradient_of_the_correlation_is_orthogonal_to_mean_and_direction():
    """So it leaves the critic, the mean of a code, where it is, and turns the direction alone."""
    z, code = torch.randn(2, 5, 8).double().unbind()
    code.requires_grad_()
    (gradient,) = torch.autograd.grad(correlation(z, code).sum(), code)
    assert gradient.norm(dim=1).min() > 1e-3
    assert gradient.sum(1).abs().max() < 1e-12
    assert (gradient * normalise(code)).sum(1).abs().max() < 1e-6  # there is an ε inside of the root


def linear(dim=2, latent_dim=3, **changes):
    """An O-GAN of points whose two networks are linear."""
    made = OGAN(dim=dim, latent_dim=latent_dim, width=4, architecture="mlp", **changes)
    made.encoder, made.generator = nn.Linear(dim, latent_dim), nn.Linear(latent_dim, dim)
    return made.double()


@pytest.mark.parametrize(("weight", "potential"), [(0.5, 0.25), (0.0, 0.25), (1.0, 2.0)])
def test_the_loss_is_that_of_the_article_in_scores(weight, potential):
    """Its code has energies: e(x) = −score, t₁ = e(x) − e(G(z)), t₂ = 0, mean(t₁ + t₂ − ρ/2) + mean(t₁²/4 / mean(x − G(z))²)."""
    made = linear(correlation_weight=weight, potential_weight=potential)
    x = torch.randn(7, 2).double()
    loss = seeded(made.single_loss, {"points": x})
    torch.manual_seed(0)
    z = torch.randn(7, 3, dtype=torch.float64)
    with torch.no_grad():
        fake = made.generator(z)
        code = made.encoder(fake)
        energies = [-made.encoder(points).mean(1) for points in (x, fake)]
    t1 = (energies[0] - energies[1]).numpy()
    rho = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(z.numpy(), code.numpy(), strict=True)])
    distance = np.square(x.numpy() - fake.numpy()).mean(1)
    expected = np.mean(t1 - weight * rho) + np.mean(potential * np.square(t1) / distance)
    # ρ has an ε inside of its roots
    assert loss.value.item() == pytest.approx(expected, abs=1e-5)
    assert loss.metrics["correlation"].item() == pytest.approx(rho.mean(), abs=1e-5)
    assert loss.metrics["score_gap"].item() == pytest.approx(-t1.mean(), abs=1e-12)


class Copies(nn.Module):
    """A generator that makes the same examples of any code."""

    def __init__(self, made):
        super().__init__()
        self.made = nn.Parameter(made)

    def forward(self, z):
        return self.made


def test_a_generator_that_copies_real_examples_costs_a_finite_loss():
    """Where the distance is 0 the gap is too, and their quotient is not a number."""
    made = linear()
    x = torch.randn(5, 2).double()
    made.generator = Copies(x.clone())
    value = made.single_loss({"points": x}).value
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients(value, made))


def separate_losses(made, batch, conditions):
    """The critic's and the generator's loss, each by passes of its own, without ρ."""
    torch.manual_seed(0)
    fake = made.generator(torch.randn(6, 8, dtype=torch.float64), *conditions)
    real = batch["images"].double() / 127.5 - 1

    def score(x):
        return made._scores(made.encoder(x), *(conditions or (None,)))

    gap = score(real) - score(fake.detach())
    distance = (real - fake.detach()).square().flatten(1).mean(1)
    return (gap.square() / (4 * distance) - gap).mean(), -score(fake).mean()


@pytest.mark.parametrize("make", [model, conditional])
def test_the_one_loss_has_the_gradients_of_two(make):
    made, batch = make(correlation_weight=0), images()
    value = seeded(made.single_loss, batch).value
    conditions = (batch["labels"],) if made.given else ()
    critic, generator = separate_losses(made, batch, conditions)
    for loss, module in ((critic, made.encoder), (generator, made.generator)):
        for mine, other in zip(gradients(value, module), gradients(loss, module), strict=True):
            assert torch.allclose(mine, other, atol=1e-12)
    assert value.item() == pytest.approx(critic.item(), abs=1e-12)


def test_the_correlation_moves_both_networks():
    """Nothing stops its gradient, neither on the way to the encoder nor to the generator."""
    made, batch = model(correlation_weight=1.0), images()
    found = {}
    for weight in (0.0, 1.0):
        made.correlation_weight = weight
        value = seeded(made.single_loss, batch).value
        found[weight] = [gradients(value, module) for module in (made.encoder, made.generator)]
    torch.manual_seed(0)
    z = torch.randn(6, 8, dtype=torch.float64)
    rho = correlation(z, made.encoder(made.generator(z))).mean()
    for module, without, with_rho in zip((made.encoder, made.generator), *found.values(), strict=True):
        for a, b, own in zip(without, with_rho, gradients(rho, module), strict=True):
            assert torch.allclose(b - a, -own, atol=1e-9)
        assert max(float(g.abs().max()) for g in gradients(rho, module)) > 1e-6


@pytest.mark.parametrize("make", [model, conditional])
def test_a_constant_added_to_all_scores_changes_nothing(make):
    """The bias of the last layer moves the critic, and neither the differences of scores nor ρ."""
    made, batch = make(), images()
    before = seeded(made.single_loss, batch)
    with torch.no_grad():
        list(made.encoder.parameters())[-1].add_(3.0)
    after = seeded(made.single_loss, batch)
    assert after.value.item() == pytest.approx(before.value.item(), abs=1e-6)
    assert after.metrics["score_gap"].item() == pytest.approx(before.metrics["score_gap"].item(), abs=1e-9)


def test_of_a_conditional_model_the_class_is_in_the_score_and_not_in_the_code():
    made, batch = conditional(), images()
    x = {"images": batch["images"].double() / 255}
    assert made.encode(x).shape == (6, 8)
    assert torch.equal(made.encode({**x, "labels": batch["labels"]}), made.encode(x))
    outputs = made.encoder(2 * x["images"] - 1)
    scores = torch.stack([made._scores(outputs, torch.full((6,), label)) for label in range(3)])
    expected = outputs[:, :8].mean(1) + outputs[:, 8:].T
    assert torch.allclose(scores, expected, atol=1e-14)
    assert scores.std(0).min() > 1e-6


def test_the_correlation_does_not_move_what_scores_a_class():
    made = conditional()
    torch.manual_seed(0)
    z = torch.randn(6, 8, dtype=torch.float64)
    outputs = made.encoder(made.generator(z, torch.arange(6) % 3))
    (gradient,) = torch.autograd.grad(correlation(z, outputs[:, :8]).sum(), outputs)
    assert gradient[:, 8:].abs().max() == 0
    assert gradient[:, :8].sum(1).abs().max() < 1e-12
    assert gradient.abs().max() > 1e-6


def test_a_conditional_model_makes_another_image_of_each_class():
    made = conditional().eval()
    z = torch.randn(1, 8).double().expand(3, 8)
    drawn = made.decode(z, {"labels": torch.arange(3)})["images"]
    assert (drawn[0] - drawn[1:]).abs().flatten(1).amax(1).min() > 1e-6


@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "resnet"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 32), (3, 32, 32)])
def test_images_of_every_size_are_encoded_and_decoded(architecture, shape):
    made = model(image_shape=shape, architecture=architecture).float().eval()
    x = {"images": torch.rand(2, *shape)}
    code = made.encode(x)
    assert code.shape == (2, 8)
    rebuilt = made.decode(code, {})["images"]
    assert rebuilt.shape == x["images"].shape
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: model(conditional=True),
            "train.network.conditional: the data has no labels; take data with classes",
        ),
        (lambda: model(image_shape=(1, 1, 1)), "takes images of 8×8 or more, not 1×1"),
        (lambda: model(image_shape=None), "the data must be images or points"),
        (lambda: conditional().decode(torch.zeros(1, 8).double(), {}), "the condition 'labels' is missing"),
        (
            lambda: conditional().decode(torch.zeros(1, 8).double(), {"labels": torch.tensor([3])}),
            "the classes of this model are 0 to 2, not 3",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def ring(n):
    """Eight Gaussians of deviation 0.1 about a circle of radius 2."""
    angle = torch.randint(0, 8, (n,)) * (torch.pi / 4)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(n, 2)


def trained_on_a_ring(weight, steps):
    """ρ, and the median distance of points from what the generator makes of their codes."""
    torch.manual_seed(0)
    made = OGAN(dim=2, latent_dim=4, width=128, architecture="mlp", correlation_weight=weight)
    solver = torch.optim.RMSprop(made.parameters(), 5e-4, alpha=0.99)
    for _ in range(steps):
        solver.zero_grad()
        loss = made.single_loss({"points": ring(256)})
        loss.value.backward()
        solver.step()
    x = {"points": ring(1000)}
    with torch.no_grad():
        error = (made.decode(made.encode(x), {})["points"] - x["points"]).norm(dim=1).median().item()
    return loss.metrics["correlation"].item(), error


@pytest.mark.slow
def test_only_with_the_correlation_does_the_critic_encode():
    with_rho, without = trained_on_a_ring(0.5, 3000), trained_on_a_ring(0.0, 3000)
    print(with_rho, without)
    assert with_rho[0] > 0.6
    assert with_rho[1] < 0.4
    assert abs(without[0]) < 0.4
    assert without[1] > 0.8
