"""Exact tests of the models whose training has several players, chains or codes of its own."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.models.aae import AAE
from genpipe.models.energy import EnergyModel
from genpipe.models.glann import GLANN, pyramid, pyramid_distance, pyramid_distances, whitened
from genpipe.nn.langevin import by_autograd, langevin
from genpipe.nn.nearest import nearest, nearest_on_sphere


def batch(n=8, side=8):
    images = torch.randint(0, 256, (n, 1, side, side), dtype=torch.uint8)
    return {"images": images, "rows": torch.arange(n)}


def gradients(loss, *modules):
    parameters = [p for module in modules for p in module.parameters()]
    return torch.autograd.grad(loss.value, parameters, allow_unused=True)


def minimise(loss, module, steps, lr=1e-3):
    solver = torch.optim.Adam(module.parameters(), lr)
    for _ in range(steps):
        for parameter, gradient in zip(module.parameters(), gradients(loss(batch()), module), strict=True):
            parameter.grad = gradient
        solver.step()


def aae():
    return AAE(image_shape=(1, 8, 8), latent_dim=4, width=4, hidden_dim=16).double()


def test_a_critic_of_codes_that_sees_nothing_costs_ln_2_a_code():
    model = aae()
    with torch.no_grad():
        model.critic[-2].weight.zero_()
        model.critic[-2].bias.zero_()
    assert model.critic_loss(batch()).value.item() == pytest.approx(2 * math.log(2), abs=1e-12)
    assert model.match_loss(batch()).value.item() == pytest.approx(math.log(2), abs=1e-12)


def test_each_player_of_an_aae_reaches_its_own_networks():
    model = aae()
    reached = {
        loss.__name__: {
            name
            for name in ("encoder", "decoder", "critic")
            if None not in gradients(loss(batch()), getattr(model, name))
        }
        for loss in (model.reconstruction_error, model.critic_loss, model.match_loss)
    }
    assert reached == {
        "reconstruction_error": {"encoder", "decoder"},
        "critic_loss": {"critic"},
        "match_loss": {"encoder", "critic"},
    }
    (phase,) = model.phases()
    assert [update.modules for update in phase.updates] == [
        (model.encoder, model.decoder),
        (model.critic,),
        (model.encoder,),
    ]


def test_the_critic_of_codes_scores_noise_high_and_the_encoder_follows():
    torch.manual_seed(0)
    model = aae()
    minimise(model.critic_loss, model.critic, 100)
    assert model.critic_loss(batch()).metrics["score_gap"] > 0
    before = model.match_loss(batch()).value
    minimise(model.match_loss, model.encoder, 100)
    assert model.match_loss(batch()).value < 0.9 * before


def test_langevin_adds_its_noise_before_the_step():
    """x ← (1 − a)(x + s ξ) has the variance (1 − a)² s²/(1 − (1 − a)²); with the noise last it would be 23 % more."""
    torch.manual_seed(0)
    a, s = 0.1, 0.05
    start = torch.full((400, 8, 8), 0.5, dtype=torch.float64)
    end = langevin(by_autograd(lambda x: (x - 0.5).square().sum((1, 2)) / 2), start, 60, step=a, noise=s)
    assert end.var().item() == pytest.approx((1 - a) ** 2 * s**2 / (1 - (1 - a) ** 2), rel=0.03)


def test_langevin_clips_each_element_of_the_gradient_and_stays_among_images():
    slope = torch.tensor([[3.0, -0.01], [0.02, -5.0]]).double()
    start = torch.tensor([[[0.5, 0.5], [0.5, 0.9]]]).double()
    end = langevin(by_autograd(lambda x: (slope * x).sum((1, 2))), start, 1, step=10, noise=0, bound=0.03)
    assert torch.allclose(end, torch.tensor([[[0.2, 0.6], [0.3, 1.0]]]).double(), atol=1e-14)


def test_no_gradient_flows_through_a_chain():
    layer = nn.Linear(4, 1).double()
    start = torch.rand(3, 2, 2).double().requires_grad_()
    with torch.no_grad():
        end = langevin(by_autograd(lambda x: layer(x.flatten(1)).squeeze(1)), start, 3, step=1, noise=0.01)
    assert not end.requires_grad
    assert layer.weight.grad is None
    assert layer.weight.requires_grad
    assert not torch.equal(end, start)


def energy(num_replay=16, **changes):
    return EnergyModel((1, 8, 8), width=4, num_replay=num_replay, chain_steps=2, **changes).double()


def test_the_squares_of_both_energies_are_paid_for():
    """Of a constant energy c only they are left: 2 w c². The article's minus sign would leave nothing."""
    model = energy(square_weight=0.3)
    with torch.no_grad():
        model.layers[-2].weight.zero_()
        model.layers[-2].bias.fill_(1.5)
    loss = model.contrastive_loss({**batch(), "replay": model.replay})
    assert loss.value.item() == pytest.approx(0.3 * 2 * 1.5**2, abs=1e-12)


def test_a_step_writes_the_ends_of_its_chains_over_as_many_replayed_rows():
    model = energy()
    before = model.replay.clone()
    model.contrastive_loss({**batch(5), "replay": model.replay[:8]})
    changed = (before != model.replay).flatten(1).any(1)
    assert changed.sum() == 5
    assert not changed[8:].any()


def test_a_twentieth_of_the_chains_start_anew():
    model, n = energy(num_replay=8000), 8000
    starts, _ = model._starts(torch.zeros_like(model.replay))
    anew = (starts.flatten(1).amax(1) > 1 / 256).sum().item()
    assert abs(anew - 0.05 * n) < 4 * math.sqrt(n * 0.05 * 0.95)


def test_a_replay_buffer_smaller_than_its_slice_of_the_batch_is_refused():
    model = energy(num_replay=4)
    with pytest.raises(BadInput, match="num_replay: must be 8 or more rows for each logical worker"):
        model.contrastive_loss({**batch(), "replay": model.replay})


def test_the_energy_of_what_was_seen_falls_below_that_of_noise():
    torch.manual_seed(0)
    model = energy()
    seen = {"images": torch.full((8, 1, 8, 8), 100, dtype=torch.uint8), "replay": model.replay}
    minimise(lambda _: model.contrastive_loss(seen), model.layers, 100)
    noise = torch.rand(8, 1, 8, 8).double()
    low, high = ({"images": x} for x in (seen["images"].double() / 256, noise))
    assert model.energy(low).max() < model.energy(high).min()


def glann(**changes):
    return GLANN(
        (1, 8, 8), num_images=20, latent_dim=4, width=4, noise_dim=3, hidden_dim=8, **changes
    ).double()


def test_the_bands_of_a_pyramid_add_up_to_the_image():
    x = torch.rand(3, 1, 8, 12).double()
    fine, middle, rest = pyramid(x)
    grown = rest
    for band in (middle, fine):
        grown = grown.repeat_interleave(2, 2).repeat_interleave(2, 3) + band
    assert torch.allclose(grown, x, atol=1e-14)
    assert [band.shape for band in (fine, middle, rest)] == [(3, 1, 8, 12), (3, 1, 4, 6), (3, 1, 2, 3)]


def test_a_change_of_brightness_counts_once_in_the_pyramid_distance():
    x = torch.rand(3, 1, 8, 8).double()
    assert pyramid_distance(x, x + 0.25).item() == pytest.approx(0.25, abs=1e-14)


def test_whitened_components_are_uncorrelated_and_of_unit_variance():
    x = torch.randn(50, 6).double() @ torch.randn(6, 6).double()
    z = whitened(x, 4)
    assert torch.allclose(z.T @ z / 50, torch.eye(4).double(), atol=1e-10)
    assert z.mean(0).abs().max() < 1e-12


def test_codes_start_from_the_images_that_were_seen():
    model, seen = glann(), batch()
    before = model.codes.weight.clone()
    model.start_codes([seen])
    expected = whitened(seen["images"].flatten(1).double() / 255, 4)
    assert torch.allclose(model.codes.weight[:8], expected, atol=1e-4)
    assert torch.equal(model.codes.weight[8:], before[8:])


def test_only_the_codes_of_a_batch_have_a_gradient():
    model = glann()
    rows = torch.tensor([3, 7, 11, 0])
    (gradient,) = gradients(model.reconstruction_error({**batch(4), "rows": rows}), model.codes)
    assert sorted(gradient.abs().sum(1).nonzero().flatten().tolist()) == [0, 3, 7, 11]


def test_codes_are_put_on_the_unit_sphere_without_a_change_of_what_they_decode_to():
    model = glann().eval()
    before = model.decode(model.codes.weight, {})["images"]
    model.normalise_codes([])
    assert torch.allclose(model.codes.weight.norm(dim=1), torch.ones(20).double(), atol=1e-14)
    assert torch.allclose(model.decode(model.codes.weight, {})["images"], before, atol=1e-12)


def test_each_code_is_pulled_to_by_the_nearest_candidate():
    model = glann(num_candidates=50)
    model.normalise_codes([])
    wanted = batch()
    torch.manual_seed(0)
    loss = model.nearest_distance(wanted)
    torch.manual_seed(0)
    candidates = model.mapped(torch.randn(50, 3, dtype=torch.float64))
    distances = torch.cdist(model.codes.weight[:8], candidates).square()
    assert torch.allclose(loss.value, distances.min(1).values.mean(), atol=1e-12)
    mine = gradients(loss, model.mapper)
    for gradient, brute in zip(
        mine,
        torch.autograd.grad(distances.min(1).values.mean(), list(model.mapper.parameters())),
        strict=True,
    ):
        assert torch.allclose(gradient, brute, atol=1e-10)


def test_the_mapper_does_not_move_the_codes():
    model = glann()
    before = copy.deepcopy(model.codes.weight)
    assert gradients(model.nearest_distance(batch()), model.codes) == (None,)
    assert torch.equal(before, model.codes.weight)


def test_a_code_is_no_farther_from_the_nearest_of_more_candidates():
    """The mean distance of all codes never grows when candidates are added, and is 0 where each is hit."""
    torch.manual_seed(0)
    codes, candidates = (nn.functional.normalize(torch.randn(n, 4).double()) for n in (20, 90))
    distances = []
    for number in range(1, 91):
        found = candidates[nearest_on_sphere(codes, candidates[:number], chunk=7)]
        distances.append((codes - found).square().sum(1).mean().item())
    assert all(after <= before for before, after in itertools.pairwise(distances))
    assert distances[-1] < 0.5 * distances[0]
    assert torch.equal(
        nearest_on_sphere(codes, torch.cat([candidates, codes]), chunk=7), torch.arange(90, 110)
    )


@pytest.mark.parametrize("chunk", [1, 7, 30, 100])
def test_the_nearest_in_chunks_is_the_nearest_of_all(chunk):
    codes, candidates = (nn.functional.normalize(torch.randn(n, 3).double()) for n in (11, 30))
    expected = torch.cdist(codes, candidates, compute_mode="donot_use_mm_for_euclid_dist").min(1).values
    found = nearest_on_sphere(codes, candidates, chunk)
    assert torch.allclose((codes - candidates[found]).norm(dim=1), expected, atol=1e-14)


def imle(**changes):
    torch.manual_seed(0)
    return GLANN((1, 8, 8), num_images=20, codes=False, latent_dim=4, width=4, **changes).double()


def made_by(model, number):
    """Candidates in [−1, 1], [number, pixels], the first of them the same whatever the number is."""
    with torch.no_grad():
        return model.decoder(model.mapped(torch.randn(number, 4).double())).flatten(1)


@pytest.mark.parametrize("sizes", [[30], [7] * 4 + [2], [1] * 30, [29, 1]])
def test_the_nearest_of_parts_is_the_nearest_of_all(sizes):
    """Candidates of other lengths too: the longest is no nearer for its length."""
    x, candidates = torch.randn(11, 3).double(), torch.randn(30, 3).double() * torch.rand(30, 1).double() * 4
    expected = torch.cdist(x, candidates, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert torch.equal(nearest(x, candidates.split(sizes)), expected)
    assert torch.equal(nearest(candidates, candidates.split(sizes)), torch.arange(30))


def test_the_first_of_equal_candidates_is_the_nearest_in_any_parts():
    same = torch.ones(6, 2)
    for sizes in ([6], [2, 4], [1] * 6):
        assert nearest(torch.zeros(3, 2), same.split(sizes)).tolist() == [0, 0, 0]


def test_imle_is_the_mean_distance_of_images_from_the_nearest_made_ones_found_by_brute_force():
    model, seen = imle(num_candidates=50), batch()
    real = seen["images"].flatten(1).double() / 127.5 - 1
    torch.manual_seed(0)
    loss = model.nearest_image_distance(seen)
    torch.manual_seed(0)
    made = model.decoder(model.mapped(torch.randn(50, 4, dtype=torch.float64))).flatten(1)
    brute = (
        torch.cdist(real, made, compute_mode="donot_use_mm_for_euclid_dist").square().min(1).values.mean()
        / 64
    )
    assert torch.allclose(loss.value, brute, atol=1e-12)
    assert loss.metrics["mse"].item() == pytest.approx(brute.item() / 4)
    expected = torch.autograd.grad(brute, list(model.decoder.parameters()))
    for gradient, one in zip(gradients(loss, model.decoder), expected, strict=True):
        assert torch.allclose(gradient, one, atol=1e-10)


def test_no_image_is_farther_from_the_nearest_of_more_made_ones():
    """Of nested samples of 1, 2, … images the mean distance never grows; it is 0 where each real image is among them."""
    model = imle()
    real, made = torch.rand(20, 64).double() * 2 - 1, made_by(model, 200)
    distances = []
    for number in range(1, 201):
        found = made[nearest(real, made[:number].split(64))]
        distances.append((real - found).square().mean().item())
    assert all(after <= before for before, after in itertools.pairwise(distances))
    assert distances[-1] < distances[0]
    hit = torch.cat([made, real])
    assert torch.equal(hit[nearest(real, hit.split(64))], real)


def test_a_candidate_of_imle_is_the_same_alone_and_among_others_in_training():
    model = imle().train()
    z = model.mapped(torch.randn(30, 4).double())
    assert torch.allclose(model.decoder(z)[3:4], model.decoder(z[3:4]), atol=1e-14)


def test_imle_leaves_no_mode_out():
    """Of two kinds of images each has a made one near it, though nine of ten are of one kind."""
    model = imle(num_candidates=32)
    images = torch.full((20, 1, 8, 8), 255, dtype=torch.uint8)
    images[:18, :, :4] = 0
    images[18:, :, 4:] = 0
    minimise(lambda _: model.nearest_image_distance({"images": images}), model.decoder, 150, lr=1e-2)
    real, made = images.flatten(1).double() / 127.5 - 1, made_by(model, 200)
    distances = (real - made[nearest(real, [made])]).square().mean(1)
    between = (real[0] - real[-1]).square().mean()
    assert distances.max() < 0.01 * between


@pytest.mark.parametrize("knob", ["noise_dim", "hidden_dim", "mapper_share"])
def test_what_maps_noise_to_codes_has_no_effect_without_codes(knob):
    with pytest.raises(BadInput, match=f"train.network.{knob} has no effect without codes; take it out"):
        imle(**{knob: 0.5 if knob == "mapper_share" else 5})


@pytest.mark.parametrize("model_of", [lambda: glann(), lambda: imle()], ids=["glann", "imle"])
def test_encoding_finds_codes_whose_images_are_nearer_than_any_start(model_of):
    torch.manual_seed(0)
    model = model_of().eval()
    wanted = model.decode(torch.randn(6, 4).double(), {})["images"]
    starts = model._best_starts(2 * wanted - 1)
    with torch.no_grad():
        z = model.encode({"images": wanted})
        before, after = (
            pyramid_distances(model.decode(code, {})["images"], wanted).mean().item() for code in (starts, z)
        )
    assert torch.allclose(z.norm(dim=1), torch.ones(6).double(), atol=1e-12)
    assert after < 0.75 * before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_more_latent_dimensions_than_pixels_are_refused():
    with pytest.raises(BadInput, match="latent_dim: must be 16 or fewer, the pixels of an image, not 17"):
        GLANN((1, 4, 4), num_images=20, latent_dim=17)
