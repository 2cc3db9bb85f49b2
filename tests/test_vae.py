"""Exact tests of variational autoencoders: the bound, its parts, and the model whose bound is its likelihood."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from genpipe.errors import BadInput
from genpipe.models.vae import VAE
from genpipe.nn import variational
from genpipe.nn.pixels import dequantised

SHAPE = (1, 8, 8)
START = {"progress": torch.tensor(0.0)}


def vae(shape=SHAPE, seed=0, **changes):
    torch.manual_seed(seed)
    network = {"latent_dim": 3, "width": 4, "feature_dim": 8, **changes}
    return VAE(image_shape=shape, **network).double()


def batch(n=6, shape=SHAPE, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
    return {"images": images, "labels": torch.arange(n) % 3, **START}


def posterior(n=5, dim=3):
    torch.manual_seed(0)
    return torch.randn(2, n, dim, dtype=torch.float64).unbind()


def test_the_divergence_is_that_of_torch_and_of_monte_carlo():
    mean, log_var = posterior()
    q, prior = Normal(mean, (log_var / 2).exp()), Normal(torch.zeros_like(mean), 1)
    exact = kl_divergence(q, prior).sum(1)
    assert torch.allclose(variational.divergence(mean, log_var), exact, atol=1e-12)
    noise = torch.randn(40_000, *mean.shape, dtype=torch.float64)
    z = variational.moved(mean, log_var, noise)
    each = (q.log_prob(z) - prior.log_prob(z)).sum(2)
    assert ((each.mean(0) - exact).abs() < 5 * each.std(0) / math.sqrt(len(each))).all()


def test_the_ratio_of_prior_and_posterior_is_that_of_torch():
    mean, log_var = posterior()
    noise = torch.randn_like(mean)
    z = variational.moved(mean, log_var, noise)
    ratio = (Normal(0, 1).log_prob(z) - Normal(mean, (log_var / 2).exp()).log_prob(z)).sum(1)
    assert torch.allclose(variational.log_ratio(z, noise, log_var), ratio, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (2, 4, 4)])
def test_the_likelihoods_are_those_of_torch_with_all_constants(shape):
    torch.manual_seed(0)
    x, mean = torch.rand(2, 5, 2, 4, 4, dtype=torch.float64).unbind()
    log_deviation = torch.randn(shape, dtype=torch.float64)
    exact = Normal(mean, log_deviation.exp()).log_prob(x).flatten(1).sum(1)
    assert torch.allclose(variational.gaussian(x, mean, log_deviation), exact, atol=1e-11)
    bits, logits = x.round(), 5 * torch.randn_like(x)
    exact = Bernoulli(logits=logits).log_prob(bits).flatten(1).sum(1)
    assert torch.allclose(variational.bernoulli(bits, logits), exact, atol=1e-11)


class Fixed(nn.Module):
    """A network that answers an affine function, in place of one of the model; the class is not looked at."""

    def __init__(self, weight, bias, shape=None):
        super().__init__()
        self.weight, self.bias, self.shape = nn.Parameter(weight), nn.Parameter(bias), shape

    def forward(self, x, labels=None):
        made = F.linear(x.flatten(1), self.weight, self.bias)
        return made if self.shape is None else made.unflatten(1, self.shape)


def principal_axes(x, latent_dim):
    """The fit of probabilistic PCA (Tipping, Bishop, 1999): mean, weights [dim, latent_dim], and the variance that is left."""
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    left = values[:-latent_dim].mean()
    return mean, vectors[:, -latent_dim:] * (values[-latent_dim:] - left).sqrt(), left


def data_of_few_dimensions(n=200, dim=6):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    mixing = torch.randn(3, dim, generator=generator, dtype=torch.float64)
    return 0.3 * latents @ mixing + 0.2 * torch.randn(n, dim, generator=generator, dtype=torch.float64) + 0.4


def linear_vae(weights, mean, variance):
    """A VAE of points with a linear decoder, and the true posterior as its encoder."""
    dim, latent_dim = weights.shape
    model = VAE(dim=dim, architecture="mlp", latent_dim=latent_dim, width=4, feature_dim=4).double()
    precision = weights.T @ weights + variance * torch.eye(latent_dim, dtype=torch.float64)
    to_code = torch.linalg.solve(precision, weights.T)
    log_var = (variance / precision.diagonal()).log()
    model.decoder = Fixed(weights, mean)
    model.encoder = Fixed(
        torch.cat([to_code, torch.zeros_like(to_code)]), torch.cat([-to_code @ mean, log_var])
    )
    model.log_deviation = nn.Parameter(variance.log() / 2)
    return model


def test_the_bound_of_a_linear_model_is_the_log_likelihood_of_probabilistic_pca():
    """With the true posterior every draw weighs p(x): ELBO, importance-weighted bound and log-likelihood are one number."""
    x = data_of_few_dimensions()
    mean, weights, variance = principal_axes(x, 2)
    model = linear_vae(weights, mean, variance)
    covariance = weights @ weights.T + variance * torch.eye(x.shape[1], dtype=torch.float64)
    exact = MultivariateNormal(mean, covariance).log_prob(x)
    found = model.log_weights({"points": x}, 4)
    assert torch.allclose(found, exact[:, None].expand_as(found), atol=1e-9)
    off = linear_vae(1.01 * weights, mean, variance)  # the control: with another decoder it is another number
    assert not torch.allclose(off.log_weights({"points": x}, 4), found, atol=1e-3)


def test_the_elbo_that_is_trained_is_the_mean_of_the_log_weights():
    """Of one distribution; the closed form of the divergence and its draws differ by Monte Carlo's error only."""
    x = {"points": data_of_few_dimensions(4)}
    torch.manual_seed(0)
    model = VAE(dim=6, architecture="mlp", latent_dim=2, width=8, feature_dim=8).double()
    many = {"points": x["points"].repeat_interleave(1500, 0), **START}
    negative_elbo = model.negative_elbo(many).metrics["negative_elbo"]
    weights = model.log_weights(x, 1500)
    error = weights.std() / math.sqrt(weights.numel())
    assert abs(negative_elbo + weights.mean()) < 8 * error


def test_training_a_linear_model_finds_the_log_likelihood_of_probabilistic_pca():
    x = data_of_few_dimensions()
    mean, weights, variance = principal_axes(x, 2)
    covariance = weights @ weights.T + variance * torch.eye(x.shape[1], dtype=torch.float64)
    best = MultivariateNormal(mean, covariance).log_prob(x).mean()
    torch.manual_seed(0)
    model = linear_vae(torch.randn_like(weights), torch.zeros_like(mean), torch.ones_like(variance))
    solver = torch.optim.Adam(model.parameters(), 0.04)
    schedule = torch.optim.lr_scheduler.LinearLR(solver, 1, 0.02, 400)
    for _ in range(400):
        solver.zero_grad()
        model.negative_elbo({"points": x, **START}).value.backward()
        solver.step()
        schedule.step()
    with torch.no_grad():
        bound = model.log_weights({"points": x}, 50).mean()
    assert best - 0.05 < bound < best + 0.01  # by Monte Carlo's error


def test_the_loss_sums_over_pixels_and_averages_over_images():
    """A mean over pixels in its place would be a β of their number."""
    model, one = vae(likelihood="bernoulli"), batch(1)
    for parameter in model.decoder.parameters():
        nn.init.zeros_(parameter)
    found = model.negative_elbo({**one, "images": one["images"].repeat(5, 1, 1, 1)}).metrics
    assert found["distortion"].item() == pytest.approx(64 * math.log(2), abs=1e-10)
    assert found["negative_elbo"].item() == pytest.approx((found["distortion"] + found["rate"]).item())


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 1.0])
def test_beta_weighs_the_divergence_and_rises_to_its_value(progress):
    model = vae(beta=4.0, warmup=0.2)
    found = model.negative_elbo({**batch(), "progress": torch.tensor(progress)})
    weight = 4 * min(1, progress / 0.2)
    expected = found.metrics["distortion"] + weight * found.metrics["rate"]
    assert found.value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_bernoulli_model_is_a_distribution_over_all_binary_images():
    """Importance weighting is unbiased for p(x), and the probabilities of all 2^D images add up to 1. D = 4 here."""
    torch.manual_seed(0)
    model = VAE(
        image_shape=(1, 2, 2),
        likelihood="bernoulli",
        architecture="mlp",
        latent_dim=1,
        width=4,
        feature_dim=4,
    )
    model = model.double()
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4).view(16, 1, 2, 2)
    with torch.no_grad():
        weights = model.log_weights({"images": bits}, 1500).exp()
    total, error = weights.mean(1).sum(), (weights.var(1) / 1500).sum().sqrt()
    assert abs(total - 1) < 5 * error
    assert error < 0.03


def test_a_gaussian_model_is_a_density_of_values():
    """∫ p(x) dx = 1 over the line, by a sum over a grid; so bits a pixel, by ln 256 more, are those of a code for bytes."""
    torch.manual_seed(0)
    model = VAE(dim=1, architecture="mlp", latent_dim=1, width=4, feature_dim=4).double()
    grid = torch.linspace(-6, 6, 601, dtype=torch.float64)[:, None]
    with torch.no_grad():
        weights = model.log_weights({"points": grid}, 400).exp()
    step = 12 / 600
    total, error = weights.mean(1).sum() * step, (weights.var(1) / 400).sum().sqrt() * step
    assert abs(total - 1) < 5 * error
    assert error < 0.05


def test_a_gaussian_model_sees_dequantised_pixels_and_a_bernoulli_one_bits(monkeypatch):
    seen = {}
    images = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).repeat(64)[: 4 * 64].view(4, 1, 8, 8)
    for likelihood in ("bernoulli", "gaussian"):
        model = vae(likelihood=likelihood)
        monkeypatch.setattr(
            model, "_posterior", lambda x, labels, own=likelihood: (seen.update({own: x}), posterior(4, 3))[1]
        )
        torch.manual_seed(7)
        model.negative_elbo({"images": images, **START})
    assert seen["bernoulli"].unique().tolist() == [0, 1]
    assert torch.equal(seen["bernoulli"], (images >= 128).double())
    torch.manual_seed(7)
    assert torch.equal(seen["gaussian"], dequantised(images, torch.float64))
    assert (vae(likelihood="bernoulli").observes, vae(likelihood="gaussian").observes) == ("bits", "values")


def test_a_code_of_a_grey_image_is_that_of_its_bits():
    model, images = vae(likelihood="bernoulli").eval(), batch()["images"]
    grey, bits = (images.double() / 255, (images >= 128).double())
    assert torch.equal(model.encode({"images": grey}), model.encode({"images": bits}))


def test_deviations_that_are_fixed_are_not_trained():
    counts = {kind: len(list(vae(deviations=kind).parameters())) for kind in ("fixed", "shared", "pixel")}
    assert counts["shared"] == counts["pixel"] == counts["fixed"] + 1
    assert vae(deviations="pixel").log_deviation.shape == SHAPE
    assert vae(deviation=0.5, deviations="fixed").log_deviation.exp().item() == pytest.approx(0.5)


def test_the_class_moves_encoder_and_decoder():
    model, x = vae(conditional=True, num_classes=3).eval(), batch()
    images = {"images": x["images"].double() / 255}
    codes = [model.encode({**images, "labels": torch.full((6,), label)}) for label in (0, 1)]
    assert not torch.allclose(*codes)
    z = torch.randn(6, 3, dtype=torch.float64)
    made = [model.decode(z, {"labels": torch.full((6,), label)})["images"] for label in (0, 1)]
    assert not torch.allclose(*made)
    assert model.given == ("labels",)
    assert vae(num_classes=3).given == ()


def test_drawn_pixels_are_bits_or_bytes():
    torch.manual_seed(0)
    bits = vae(likelihood="bernoulli").eval().sample(8, {}, observe=True)["images"]
    assert set(bits.unique().tolist()) == {0, 1}
    values = vae().eval().sample(8, {}, observe=True)["images"]
    assert torch.allclose(255 * values, (255 * values).round(), atol=1e-9)
    assert 0 <= values.min() < values.max() <= 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"conditional": True}, "conditional: the data has no labels"),
        ({"shape": (1, 1, 1)}, r"dcgan takes images of 8×8 or more, not 1×1; take mlp"),
        ({"shape": None}, "the data must be images or points"),
        ({"shape": None, "dim": 2, "architecture": "mlp", "likelihood": "bernoulli"}, "take gaussian"),
        ({"likelihood": "bernoulli", "deviations": "pixel"}, "network.deviations has no effect on bernoulli"),
        ({"likelihood": "bernoulli", "deviation": 0.5}, "network.deviation has no effect on bernoulli"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes, line):
    with pytest.raises(BadInput, match=line) as error:
        vae(**changes)
    assert "\n" not in str(error.value)


def test_a_class_that_is_missing_or_out_of_range_is_said():
    model = vae(conditional=True, num_classes=3).eval()
    z = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(BadInput, match="'labels' is missing"):
        model.decode(z, {})
    with pytest.raises(BadInput, match="the classes of this model are 0 to 2, not 3"):
        model.decode(z, {"labels": torch.tensor([0, 3])})
