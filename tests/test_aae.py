"""Exact tests of labels in an adversarial autoencoder, and of what its critic does to the codes."""

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.models.aae import AAE, APART, modes

LABELS = torch.arange(6) % 3


def aae(**changes):
    torch.manual_seed(0)
    network = {"latent_dim": 4, "width": 4, "hidden_dim": 16, "num_classes": 3, **changes}
    return AAE(image_shape=(1, 8, 8), **network).double()


def batch(n=6):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return {"images": images, "labels": torch.arange(n) % 3}


def test_without_labels_the_classes_of_the_data_change_nothing():
    """The weights of a start, their names, and each loss: a training made before labels were known goes on the same."""
    with_classes, without = aae(), aae(num_classes=None)
    assert with_classes.given == ()
    assert list(with_classes.state_dict()) == list(without.state_dict())
    assert all(map(torch.equal, with_classes.state_dict().values(), without.state_dict().values()))
    assert not any("network" in name for name in without.state_dict())
    for name in ("reconstruction_error", "critic_loss", "match_loss"):
        values = []
        for model in (with_classes, without):
            torch.manual_seed(2)
            values.append(getattr(model, name)(batch()).value)
        assert torch.equal(*values)


def test_the_class_goes_to_the_decoder_and_the_critic_and_not_to_the_encoder():
    model = aae(conditional=True).eval()
    z, images = torch.randn(6, 4, dtype=torch.float64), batch()["images"].double() / 255
    made = [model.decode(z, {"labels": labels})["images"] for labels in (LABELS, LABELS.roll(1))]
    assert not torch.allclose(*made)
    scores = [model._scores(z, labels) for labels in (LABELS, LABELS.roll(1))]
    assert not torch.allclose(*scores)
    assert torch.equal(model.encode({"images": images}), model.encode({"images": images, "labels": LABELS}))
    assert model.given == ("labels",)


def test_codes_and_noise_stand_beside_their_own_classes():
    """Both halves of what the critic gets have the classes of the batch, row by row."""
    model, seen = aae(conditional=True), {}

    class Looking(nn.Module):
        def forward(self, code, labels):
            seen.update(code=code, labels=labels)
            return code.sum(1)

    model.critic = Looking()
    model.critic_loss(batch())
    assert seen["labels"].tolist() == [*LABELS.tolist(), *LABELS.tolist()]
    assert torch.allclose(seen["code"][6:], model.encode({"images": batch()["images"].double() / 255}))
    model.match_loss(batch())
    assert seen["labels"].tolist() == LABELS.tolist()


@pytest.mark.parametrize("num_classes", [3, 10, 88])
def test_modes_stand_apart_and_have_together_mean_0_and_variance_1(num_classes):
    centres, deviation = modes(num_classes)
    at = torch.tensor(centres, dtype=torch.float64)
    assert at.mean(0).abs().max() < 1e-12
    assert torch.allclose(at.square().mean(0) + deviation**2, torch.ones(2, dtype=torch.float64), atol=1e-12)
    nearest = torch.cdist(at, at).fill_diagonal_(torch.inf).min()
    assert nearest.item() == pytest.approx(2 * APART * deviation)


def test_noise_of_a_class_is_that_of_its_mode():
    model = aae(prior="modes", num_classes=10)
    labels = torch.arange(10).repeat_interleave(400)
    torch.manual_seed(0)
    noise = torch.randn(4000, 4, dtype=torch.float64)
    drawn = model._of_prior(noise, labels)
    nearest = torch.cdist(drawn[:, :2], model.centres).argmin(1)
    assert (nearest == labels).double().mean() > 0.99
    assert torch.equal(drawn[:, 2:], noise[:, 2:])
    assert torch.allclose(drawn.var(0), torch.ones(4, dtype=torch.float64), atol=0.1)


def test_a_model_with_modes_samples_by_class_and_decodes_without():
    model = aae(prior="modes").eval()
    z = torch.randn(6, 4, dtype=torch.float64)
    assert torch.equal(model.decode(z, {})["images"], model.decode(z, {"labels": LABELS})["images"])
    made = []
    for labels in (LABELS, LABELS.roll(1)):
        torch.manual_seed(0)
        made.append(model.sample(6, {"labels": labels})["images"])
    assert not torch.allclose(*made)


def test_each_parameter_under_a_class_is_in_an_update():
    for changes in ({"conditional": True}, {"prior": "modes"}, {"conditional": True, "prior": "modes"}):
        model = aae(**changes)
        updates = [update for phase in model.phases() for update in phase.updates]
        for update in updates:
            reached = torch.autograd.grad(
                update.loss(batch()).value, [p for m in update.modules for p in m.parameters()]
            )
            assert all(gradient.abs().max() > 0 for gradient in reached)
        trained = {p for update in updates for module in update.modules for p in module.parameters()}
        assert trained == set(model.parameters())


def discrepancy(a, b):
    """Squared maximum mean discrepancy of two sets, [n, dim], with a Gaussian kernel of deviation √dim."""
    kernel = lambda x, y: (-torch.cdist(x, y).square() / (2 * a.shape[1])).exp().mean()
    return (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)).item()


def test_the_critic_brings_the_codes_of_linear_data_to_the_prior():
    """Of three Gaussian factors, by an affine encoder of two codes: these can be standard Gaussian, and become nearly so."""
    torch.manual_seed(0)
    model = AAE(image_shape=(1, 8, 8), latent_dim=2, width=4, hidden_dim=32)
    model.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    images = (128 + 20 * torch.randn(256, 3) @ torch.randn(3, 64)).clamp(0, 255).byte().view(-1, 1, 8, 8)
    noise = torch.randn(256, 2)
    updates = [update for phase in model.phases() for update in phase.updates if update.name != "reconstruct"]
    rates = {"critic": 3e-3, "match": 2e-3}
    solvers = {
        u.name: torch.optim.Adam(
            [p for m in u.modules for p in m.parameters()], rates[u.name], betas=(0.5, 0.9)
        )
        for u in updates
    }
    codes = lambda: model.encode({"images": images / 255}).detach()
    before = discrepancy(codes(), noise)
    for _ in range(200):
        for update in updates:
            solvers[update.name].zero_grad()
            update.loss({"images": images}).value.backward()
            solvers[update.name].step()
    assert discrepancy(codes(), noise) < 0.2 * before


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"conditional": True, "num_classes": None}, "conditional: the data has no labels"),
        ({"prior": "modes", "num_classes": None}, "prior: the data has no labels"),
        ({"prior": "modes", "latent_dim": 1}, "modes takes a latent_dim of 2 or more, not 1"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes, line):
    with pytest.raises(BadInput, match=line) as error:
        aae(**changes)
    assert "\n" not in str(error.value)
