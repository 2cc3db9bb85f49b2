"""Exact tests of models that draw a picture pixel by pixel: probabilities, causality, cached maps, likelihoods."""

import itertools
import math

import numpy as np
import pytest
import torch

from genpipe.errors import BadInput
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.likelihood import bits_per_dim
from genpipe.models.pixelcnn import PixelCNN
from genpipe.models.pixelrnn import PixelRNN
from genpipe.nn import discrete
from genpipe.nn.causal import Causal, groups_of
from genpipe.nn.raster import Cached, Naive, Raster
from genpipe.sampling.draw import first, whole
from genpipe.sampling.images import restorations
from tests import tiny
from tests.test_views import pixels, showing

MODELS = (PixelCNN, PixelRNN)
every_model = pytest.mark.parametrize("make", MODELS)
KINDS = [
    ("bits", (1, 4, 5)),
    ("levels", (1, 4, 5)),
    ("levels", (3, 3, 2)),
    ("logistics", (3, 3, 2)),
]
every_kind = pytest.mark.parametrize(("likelihood", "shape"), KINDS)


def model_of(make, shape=(1, 5, 4), **network):
    """A model far from its start, so that nothing is 0 by chance."""
    torch.manual_seed(0)
    model = make(shape, num_classes=3, **{"width": 12, **network})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def levels_of(model, n=6, seed=1):
    torch.manual_seed(seed)
    return torch.randint(0, model.likelihood.num_levels, (n, *model.image_shape))


@every_model
@pytest.mark.parametrize("labels", [None, 2])
def test_the_probabilities_of_all_binary_images_of_nine_pixels_sum_to_one(make, labels):
    model = model_of(make, (1, 3, 3), likelihood="bits", conditional=labels is not None).double()
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=9))).double().reshape(512, 1, 3, 3)
    given = {} if labels is None else {"labels": torch.full((512,), labels)}
    found = model.log_prob({"images": images, **given})
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert found.std() > 0.1


@every_model
def test_the_probabilities_of_all_colours_of_two_pixels_sum_to_one(make):
    model = model_of(make, (3, 1, 2), likelihood="bits").double()
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6))).double().reshape(64, 2, 3)
    found = model.log_prob({"images": images.mT.unsqueeze(2)})
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-12)


def slopes_of(model, shape):
    """How much the parameters of each channel depend on each channel of each pixel, both in raster order: [values, values]."""
    channels, height, width = shape
    torch.manual_seed(2)
    # several pictures: of one, a unit behind a rectifier may be silent
    x = torch.rand(8, height, width, channels, dtype=torch.float64) * 2 - 1

    def parameters(flat):
        made = model.network(flat.reshape(x.shape), None).unflatten(-1, (channels, -1))
        return made.sum((0, -1)).flatten()

    jacobian = torch.autograd.functional.jacobian(parameters, x.flatten())
    return jacobian.unflatten(1, (8, -1)).abs().amax(1)


@every_model
@pytest.mark.parametrize(("likelihood", "shape"), [("levels", (1, 6, 7)), ("bits", (3, 3, 4))])
def test_parameters_depend_on_values_before_theirs_only(make, likelihood, shape):
    model = model_of(make, shape, likelihood=likelihood).double()
    slopes = slopes_of(model, shape)
    assert (slopes.triu() == 0).all()
    assert (slopes.tril(-1) > 0).sum() > 0.5 * math.comb(len(slopes), 2)


@pytest.mark.parametrize(("shape", "blocks"), [((1, 7, 7), 8), ((3, 3, 3), 4)])
def test_no_value_before_is_in_a_blind_spot(shape, blocks):
    """Of stacked masked convolutions those to the upper right are: (5, 3) does not see (3, 6), (4, 5) and (4, 6)."""
    model = model_of(PixelCNN, shape, likelihood="bits", num_blocks=blocks, first_reach=1).double()
    slopes = slopes_of(model, shape)
    below = torch.ones_like(slopes).tril(-1) > 0
    assert (slopes[below] > 0).all()


def test_a_row_lstm_sees_a_triangle_above():
    """Its input of the row itself is that of the nearest pixels; the first layers here look at one to each side."""
    model = model_of(PixelRNN, (1, 5, 9), likelihood="bits", num_layers=1, first_reach=1).double()
    slopes = slopes_of(model, (1, 5, 9)).reshape(5, 9, 5, 9)[4, 4] > 0
    assert [row.sum().item() for row in slopes] == [9, 8, 7, 5, 2]


@every_model
@every_kind
@pytest.mark.parametrize("n", [1, 20])
def test_samples_from_cached_maps_are_those_of_the_naive_loop_bit_for_bit(make, likelihood, shape, n):
    model = model_of(make, shape, likelihood=likelihood, conditional=True)
    given = {"labels": torch.arange(n) % 3}
    torch.manual_seed(3)
    cached = model.sample(n, given, temperature=0.8)["images"]
    torch.manual_seed(3)
    naive = model.sample(n, given, temperature=0.8, cached=False)["images"]
    assert torch.equal(cached, naive)
    assert cached.unique().numel() > 1


@every_model
@pytest.mark.parametrize(("shape", "width"), [((1, 7, 9), 12), ((3, 4, 5), 21)])
@pytest.mark.parametrize("n", [16, 48])
def test_parameters_from_cached_maps_are_those_of_a_whole_pass_bit_for_bit(make, shape, width, n):
    """Not only the images: an exact form of each kernel is what makes them so."""
    model = model_of(make, shape, likelihood="logistics", width=width)
    levels = levels_of(model, n).movedim(1, -1).contiguous()
    naive, cached = (way(model.network, model.likelihood, levels, None) for way in (Naive, Cached))
    whole = naive.network(model.likelihood.centred(levels, torch.float64), None)
    for row in range(shape[1]):
        cached.begin_row(row)
        for column in range(shape[2]):
            cached.end(row, column)
            assert torch.equal(cached.pixel(row, column), whole[:, row, column])


@every_model
def test_the_form_of_float32_is_that_of_float64(make):
    model = model_of(make, (3, 6, 5), likelihood="levels")
    levels = levels_of(model)
    single = model.log_likelihood(levels, None)
    assert torch.allclose(single.double(), model.double().log_likelihood(levels, None), rtol=1e-5)


@every_model
@every_kind
def test_samples_have_the_frequencies_of_the_probabilities(make, likelihood, shape):
    """The first value of a picture, whose distribution is the same for all."""
    model = model_of(make, (shape[0], 1, 1), likelihood=likelihood, num_logistics=2).double()
    torch.manual_seed(4)
    drawn = model.levels_of(model.sample(4000, {})["images"])[:, 0, 0, 0]
    num = model.likelihood.num_levels
    x = torch.zeros(num, *model.image_shape, dtype=torch.int64)
    x[:, 0, 0, 0] = torch.arange(num)
    with torch.no_grad():
        parameters = model.network(model.likelihood.centred(x.movedim(1, -1), torch.float64), None)
    expected = model.likelihood.log_prob(x[:, 0, 0, 0], parameters[:, 0, 0, : model.likelihood.size]).exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-10)
    bins = (expected.cumsum(0) * 8).floor().clamp(max=7).long()
    shares = torch.zeros(8).double().index_add(0, bins[drawn], torch.ones(4000).double()) / 4000
    exact = torch.zeros(8).double().index_add(0, bins, expected)
    assert ((shares - exact).abs() <= 5 * (exact / 4000).sqrt() + 1e-9).all()


@pytest.mark.parametrize("scale", [-9.0, -5.0, 0.0, 4.0])
def test_discretised_logistics_sum_to_one_over_all_bytes(scale):
    likelihood = discrete.Logistics(3)
    torch.manual_seed(0)
    parameters = torch.randn(50, 9, dtype=torch.float64) * 2
    parameters[:, 6:] = scale
    every = torch.arange(256).expand(50, 256)
    found = likelihood.log_prob(every, parameters.unsqueeze(1).expand(50, 256, 9))
    assert torch.isfinite(found).all()
    assert torch.allclose(found.exp().sum(1), torch.ones(50).double(), atol=1e-12)


def test_discretised_logistics_are_differences_of_the_cumulated_distribution():
    parameters = torch.tensor([[0.3, 0.1, -1.0]], dtype=torch.float64).expand(256, 3)
    mean, scale = -1 + 0.1, math.exp(-1.0 - 2)  # means begin at −1, logarithms of scales at −2
    x = torch.arange(256).double() * 2 / 255 - 1
    upper, lower = (((x + side / 255 - mean) / scale).sigmoid() for side in (1, -1))
    upper[255], lower[0] = 1, 0
    found = discrete.Logistics(1).log_prob(torch.arange(256), parameters)
    assert torch.allclose(found.exp(), upper - lower, atol=1e-14)


@every_model
def test_bits_per_dimension_are_exact_whatever_the_noise(make):
    model = model_of(make, (3, 4, 3), likelihood="levels").double()
    levels = levels_of(model)
    exact = model.log_likelihood(levels, None)
    for u in (0.0, 0.5, 1 - 2**-16):
        density = model.log_prob({"images": (levels.double() + u) / 256})
        assert torch.allclose(density - 36 * math.log(256), exact, atol=1e-9)


@every_model
def test_the_loss_is_the_mean_of_the_nats_and_bits_a_dimension_follow(make):
    model = model_of(make, likelihood="levels").double()
    batch = {"images": levels_of(model).to(torch.uint8)}
    loss = model.negative_log_likelihood(batch)
    exact = -model.log_likelihood(batch["images"].long(), None).mean()
    assert loss.value.item() == pytest.approx(exact.item())
    assert loss.metrics["bits_per_dim"].item() == pytest.approx(exact.item() / 20 / math.log(2))


def test_a_low_temperature_draws_the_likeliest_value_and_a_high_one_any():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.9]], dtype=torch.float64).expand(1000, 4)
    torch.manual_seed(0)
    uniform = torch.rand(1000, 2, dtype=torch.float64)
    cold, warm, hot = (discrete.Softmax().draw(logits, uniform, t) for t in (0.01, 1.0, 100.0))
    assert (cold == 1).all()
    shares = torch.bincount(warm, minlength=4) / 1000
    assert torch.allclose(shares.double(), logits[0].softmax(0), atol=0.06)
    assert torch.bincount(hot, minlength=4).min() > 200


@every_model
def test_the_temperature_narrows_samples(make):
    model = model_of(make, (1, 4, 4), likelihood="logistics", num_logistics=1)
    spreads = []
    for temperature in (0.01, 1.0):
        torch.manual_seed(0)
        spreads.append(model.sample(64, {}, temperature=temperature)["images"].std(0).mean())
    assert spreads[0] < 0.1 * spreads[1]


@every_model
def test_a_model_that_was_saved_and_loaded_has_the_same_log_probabilities(make, tmp_path):
    model = model_of(make, (3, 4, 3), likelihood="logistics", conditional=True)
    torch.save(model.state_dict(), tmp_path / "weights")
    other = make((3, 4, 3), num_classes=3, likelihood="logistics", conditional=True, width=12).eval()
    other.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    x = {"images": levels_of(model) / 256, "labels": torch.arange(6) % 3}
    assert torch.equal(model.log_prob(x), other.log_prob(x))


@every_model
def test_the_class_changes_probabilities_of_all_pixels(make):
    model = model_of(make, likelihood="bits", conditional=True).double()
    x = model.likelihood.centred(levels_of(model).movedim(1, -1), torch.float64)
    one, other = (model.network(x, torch.full((6,), label)) for label in (0, 1))
    assert (one != other).all()


@every_model
@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 4, 3)])
def test_a_completion_keeps_what_it_was_given_and_is_a_draw_given_that(make, shape):
    model = model_of(make, shape, likelihood="levels", conditional=True)
    given = {"labels": torch.arange(5) % 3}
    torch.manual_seed(5)
    drawn = model.sample(5, given)["images"]
    keep = torch.zeros(shape, dtype=torch.bool)
    keep[:, :2] = True
    torch.manual_seed(5)
    again = model.restore({"images": drawn, **given}, keep)["images"]
    assert torch.equal(drawn, again)  # the same random numbers, given the same upper half
    torch.manual_seed(6)
    other = model.restore({"images": drawn, **given}, keep)["images"]
    assert torch.equal(drawn[:, :, :2], other[:, :, :2])
    assert not torch.equal(drawn, other)


def test_masked_weights_have_no_effect_and_get_no_gradient():
    groups = groups_of(6, 3)
    layer = Causal(6, 6, left=1, groups=(groups, groups), strict=True)
    x = torch.randn(2, 3, 4, 6)
    before = layer(layer.padded(x))
    layer(layer.padded(x)).sum().backward()
    assert layer.mask is not None
    assert layer.linear.weight.grad is not None
    assert (layer.linear.weight.grad[~layer.mask] == 0).all()
    with torch.no_grad():
        layer.linear.weight[~layer.mask] = 1e3
    assert torch.equal(layer(layer.padded(x)), before)


@every_model
def test_a_width_that_the_channels_do_not_divide_is_refused_in_one_line(make):
    message = r"^train\.network\.width: must be a multiple of 3, the channels of the images, not 32; take 33$"
    with pytest.raises(BadInput, match=message):
        make((3, 4, 4), width=32)


@every_model
def test_a_condition_of_data_without_classes_is_refused_in_one_line(make):
    with pytest.raises(BadInput, match=r"^train\.network\.conditional: the data has no labels"):
        make((1, 4, 4), conditional=True)


@pytest.mark.parametrize("name", ["pixelcnn", "pixelcnn_logistics"])
def test_restorations_keep_the_upper_half_of_test_images(name, tmp_path):
    data = tiny.data_for(name, tmp_path)
    model = tiny.recipe_of(name, data).eval()
    (row,) = restorations(showing(model, data, tmp_path / "shown"))
    picture = pixels(tmp_path / "shown" / row.file)
    test = first(data, 1)["images"][0, 0].numpy()
    if name == "pixelcnn":
        test = np.where(test >= 128, 255, 0)
    side, gap = tiny.SIDE, 2
    whole = first(data, 1)["images"][0, 0].numpy()
    column = (picture[gap + k * (gap + side) :][:side, gap : gap + side] for k in range(3))
    above, left, below = (part.reshape(side, side, -1)[..., 0] for part in column)
    assert np.array_equal(above, whole)
    assert np.array_equal(left[: side // 2], whole[: side // 2])
    assert (left[side // 2 :] == 128).all()
    assert np.array_equal(below[: side // 2], test[: side // 2])
    assert not np.array_equal(below[side // 2 :], test[side // 2 :])


class Even(Raster):
    """A probability of one half for each bit."""

    observes = "bits"

    def log_prob(self, x):
        assert x["images"].unique().tolist() == [0, 1]
        return torch.full((len(x["images"]),), -x["images"][0].numel() * math.log(2))


def test_a_model_of_bits_is_judged_by_nats_of_images_beside_independent_pixels(tmp_path):
    data = tiny.data_for("pixelcnn", tmp_path)
    trial = Trial(
        Even(), data, "images", "test", tmp_path, lambda: pytest.fail("a judge is not needed"), None, 0
    )
    found = bits_per_dim(trial)
    assert found["nats_per_image"] == pytest.approx(64 * math.log(2))
    train, test = (whole(data, split)["images"].flatten(1) >= 128 for split in ("train", "test"))
    share = (train.sum(0) + 1).double() / (len(train) + 2)
    exact = -torch.where(test, share.log(), (1 - share).log()).sum(1).mean()
    assert found["nats_per_image_pixelwise"] == pytest.approx(exact.item())
    assert "bits_per_dim" not in found
