"""Exact tests of the masked autoencoder and of its bricks."""

import math

import pytest
import torch

from genpipe.errors import BadInput
from genpipe.evaluation.features import PIXELS
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.restoring import accuracy_of, judge_labels, judge_restoring
from genpipe.models.mae import MAE, images_of, patches_of, standardised
from genpipe.nn.masking import is_kept, keep_some, taken
from genpipe.nn.transformer import Transformer, attention, grid_positions
from genpipe.sampling.images import COLUMNS, restorations
from tests import tiny
from tests.test_views import pixels, showing

SHAPE = (3, 8, 12)


def mae(**changes):
    torch.manual_seed(0)
    known = {
        "patch": 4,
        "width": 8,
        "decoder_width": 12,
        "num_blocks": 2,
        "num_heads": 2,
        "hidden_share": 0.5,
    }
    return MAE(SHAPE, **(known | changes)).double()


def images(n=5):
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8)


def test_patches_come_back_as_the_image_and_lie_in_the_order_of_reading():
    x = torch.rand(2, *SHAPE)
    patches = patches_of(x, 4)
    assert patches.shape == (2, 6, 48)
    assert torch.equal(images_of(patches, SHAPE, 4), x)
    assert torch.equal(patches[:, 4].view(2, 3, 4, 4), x[:, :, 4:8, 4:8])


def test_just_as_many_places_are_kept_and_the_shuffle_has_its_inverse():
    kept = keep_some(7, 10, 3)
    tokens = torch.arange(10.0).expand(7, 10).unsqueeze(-1)
    assert kept.rows.shape == (7, 3)
    assert torch.equal(is_kept(kept).sum(1), torch.full((7,), 3))
    rest = torch.tensor([[j for j in range(10) if j not in row] for row in kept.rows.tolist()])
    assert torch.equal(torch.where(is_kept(kept))[1].view(7, 3), kept.rows.sort(1).values)
    shuffled = torch.full((7, 10), -1.0)
    shuffled.scatter_(1, kept.restore, tokens.squeeze(-1))
    assert torch.equal(taken(shuffled.unsqueeze(-1), kept.restore), tokens)
    assert torch.equal(shuffled[:, 3:].sort(1).values, rest.float())


def test_attention_to_the_kept_tokens_is_full_attention_without_the_others():
    """Norm(A ⊙ M): weights of what is not seen are 0, and the others are divided by their sum."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 5).double()
    is_seen = torch.tensor([True, False, True, True, False, True]).expand(2, 6)
    masked = attention(query, key, value, is_seen)
    weights = (query @ key.mT / math.sqrt(5)).softmax(-1) * is_seen[:, None, None]
    assert torch.allclose(masked, weights / weights.sum(-1, keepdim=True) @ value, atol=1e-14)
    alone = attention(query, key[:, :, is_seen[0]], value[:, :, is_seen[0]])
    assert torch.allclose(masked, alone, atol=1e-14)


def test_a_transformer_of_the_kept_tokens_is_the_masked_one():
    torch.manual_seed(0)
    model, x = Transformer(8, 2, 2).double(), torch.randn(4, 10, 8).double()
    kept = keep_some(4, 10, 4)
    assert torch.allclose(model(taken(x, kept.rows)), taken(model(x, is_kept(kept)), kept.rows), atol=1e-13)


def test_positions_are_all_different_and_tell_row_and_column_apart():
    positions = grid_positions(3, 5, 8).double()
    assert torch.equal(positions[0], torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]).double())
    assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 0.01
    cells = positions.view(3, 5, 8)
    assert torch.equal(cells[1, :, :4], cells[1, :1, :4].expand(5, 4))
    assert torch.equal(cells[:, 2, 4:], cells[:1, 2, 4:].expand(3, 4))


def test_targets_are_standardised_by_the_unbiased_variance():
    patches = torch.rand(3, 6, 16).double()
    target, mean, deviation = standardised(patches)
    assert torch.allclose(deviation.squeeze(-1), (patches.var(-1) + 1e-6).sqrt(), atol=1e-14)
    assert torch.allclose(target * deviation + mean, patches, atol=1e-14)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_error_is_of_hidden_patches_only(normalise):
    """What the decoder says of a patch that is seen changes nothing."""
    model = mae(normalise=normalise)
    batch = {"images": images()}
    found = {}

    def note(module, arguments, out):
        out.retain_grad()
        found["out"] = out

    model.head.register_forward_hook(note)
    torch.manual_seed(3)
    model.restoration_error(batch).value.backward()
    torch.manual_seed(3)
    seen = is_kept(keep_some(5, 6, 3))
    has_gradient = found["out"].grad.abs().amax(-1) > 0
    assert torch.equal(has_gradient, ~seen)


@pytest.mark.parametrize(("drop_token", "given"), [(0.0, 3), (0.4, 2)])
def test_tokens_that_are_hidden_or_dropped_do_not_reach_the_prediction(drop_token, given):
    model = mae(drop_token=drop_token, normalise=False)
    x = images(2)
    tokens = []

    def note(module, arguments, out):
        out.retain_grad()
        tokens.append(out)

    model.embed.register_forward_hook(note)
    torch.manual_seed(3)
    model.restoration_error({"images": x}).value.backward()
    reached = tokens[0].grad.abs().amax(-1) > 0
    torch.manual_seed(3)
    kept = keep_some(2, 6, 3)
    assert torch.equal(reached, kept.restore < given)


def test_restoring_is_what_training_predicts_and_pastes_what_is_kept():
    model = mae()
    x = {"images": images().double() / 255}
    torch.manual_seed(5)
    keep = model.draw_keep(5)
    torch.manual_seed(5)
    kept = keep_some(5, 6, 3)
    assert torch.equal(patches_of(keep, 4).all(-1), is_kept(kept))
    assert torch.equal(patches_of(keep, 4).any(-1), is_kept(kept))
    patches = patches_of(2 * x["images"] - 1, 4)
    predicted = model._values(model._decoded(model._seen_tokens(patches, kept.rows), kept.restore))
    made = model.restore(x, keep)["images"]
    assert torch.equal(made[keep], x["images"][keep])
    expected = ((images_of(predicted, SHAPE, 4) + 1) / 2).clamp(0, 1)
    assert torch.allclose(made[~keep], expected[~keep], atol=1e-12)


def test_what_is_hidden_does_not_change_what_is_restored():
    model = mae()
    x, others = (images().double() / 255 for _ in range(2))
    keep = torch.zeros_like(x, dtype=torch.bool)
    keep[0, :, :4], keep[1, :, :5], keep[2, :, 1:3, 1:3] = True, True, True
    one, other = (model.restore({"images": y}, keep)["images"] for y in (x, torch.where(keep, x, others)))
    assert torch.equal(one[0], other[0])
    # rows that no seen patch holds are kept as they are, and not looked at
    assert torch.equal(one[1], other[1])
    assert one.isfinite().all()
    assert torch.allclose(one[3], one[4], atol=1e-12), "of nothing every image is restored alike"


def test_an_encoder_that_sees_the_mean_of_all_has_features_of_its_width():
    model = mae()
    x = {"images": images().double() / 255}
    assert model.encode(x).shape == (5, 8)
    assert torch.allclose(model.encode(x)[2], model.encode({"images": x["images"][2:3]})[0], atol=1e-13)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch": 5}, "patch: must divide the sides of images, 8×12, not 5"),
        ({"hidden_share": 0.9}, "hidden_share: 0.9 leaves none of 6 patches"),
        ({"width": 6}, "width: must be a multiple of 4, .* not 6"),
        ({"num_heads": 3}, "num_heads: must divide the width, 8, not 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(BadInput, match=said):
        mae(**changes)


def test_patches_of_one_number_cannot_be_normalised():
    with pytest.raises(BadInput, match="normalise: a patch of one number has no variance"):
        MAE((1, 4, 4), patch=1)
    assert MAE((1, 4, 4), patch=1, normalise=False).num_seen == 4


def test_restoration_is_judged_beside_the_mean_image(tmp_path):
    """A model that puts the mean image of training there has its error."""
    data = tiny.data_for("mae", tmp_path)
    mean = data.split("train")
    images = torch.cat([x["images"] for x in mean]).double().mean(0) / 255

    class OfMean(MAE):
        def restore(self, x, keep):
            return {"images": torch.where(keep, x["images"], images.to(x["images"]))}

    model = OfMean((1, 8, 8), patch=2, width=8, decoder_width=8, num_blocks=1, num_heads=2)
    trial = Trial(model, data, "images", "test", tmp_path, lambda: PIXELS, None, 0)
    found = judge_restoring(trial)
    assert found["restoration_mse"] == pytest.approx(found["restoration_mse_mean_image"], rel=1e-4)
    assert 0 < found["restoration_mse"] < 0.2
    assert judge_labels(trial) == {}, "48 labels are fewer than 100"


def test_an_accuracy_of_few_labels_is_a_mean_over_disjoint_sets():
    torch.manual_seed(0)
    labels = torch.arange(60) % 2
    rows = torch.randn(60, 3).double() + 6 * labels.unsqueeze(1)
    assert accuracy_of(10, rows, rows, labels, labels) == 1
    wrong = torch.where(torch.arange(60) < 10, 1 - labels, labels)
    assert accuracy_of(10, rows, rows, wrong, labels) == pytest.approx(0.8)


def test_restorations_hide_as_much_as_a_training_does_and_then_the_lower_half(tmp_path):
    data = tiny.data_for("mae", tmp_path)
    model = tiny.recipe_of("mae", data).eval()
    list(restorations(showing(model, data, tmp_path / "shown")))
    picture = pixels(tmp_path / "shown" / "restorations.png")
    side, gap = tiny.SIDE, 2
    rows = [torch.tensor(picture[gap + k * (gap + side) :][:side].reshape(side, -1).copy()) for k in range(6)]
    cells = [
        row[:, gap : gap + COLUMNS * (gap + side)].unfold(1, side, gap + side).transpose(0, 1) for row in rows
    ]
    whole, left = cells[0], cells[1]
    assert (left == whole)[left != 128].all()
    hidden = (left == 128).reshape(COLUMNS, -1).double().mean(1)
    assert hidden.mean() == pytest.approx(0.75, abs=0.02)
    assert not (left[:, side // 2 :] == 128).all()
    assert (cells[4][:, side // 2 :] == 128).all()
    assert torch.equal(cells[4][:, : side // 2], cells[3][:, : side // 2])
