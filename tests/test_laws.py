"""Laws that hold for every recipe, or for every recipe with a capability."""

import copy
from pathlib import Path
from statistics import fmean

import pytest
import torch

from genpipe.files import hash_of
from genpipe.models import RECIPES
from genpipe.recipe import Decodes, Encodes, LogProb, Recipe, Samples, Tags
from genpipe.sampling import decoding, latent
from genpipe.training.checkpoint import latest_checkpoint
from genpipe.training.log import rows_of
from genpipe.training.trainer import Trainer
from tests import tiny

every_recipe = pytest.mark.parametrize("name", sorted(RECIPES))


def those(*capabilities: type) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", tiny.names_with(*capabilities))


def trainer(name: str, root: Path, run: str = "run", **changes) -> Trainer:
    return tiny.trainer_of(name, tiny.data_for(name, root), root / run, **changes)


def weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    return copy.deepcopy(recipe.state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_list_of_recipes_equals_the_folder():
    folder = Path(__file__).parent.parent / "genpipe" / "models"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(RECIPES) == set(tiny.BLOCKS)


@every_recipe
def test_every_parameter_is_trained_by_some_phase(name, tmp_path):
    fitted = trainer(name, tmp_path)
    before = weights(fitted.recipe)
    fitted.fit()
    unmoved = [key for key, value in fitted.recipe.named_parameters() if torch.equal(before[key], value)]
    assert not unmoved


@every_recipe
def test_resuming_ends_on_the_same_bits(name, tmp_path):
    whole = trainer(name, tmp_path, "whole")
    whole.fit()
    part = trainer(name, tmp_path, "part")
    part.params = part.params.model_copy(update={"steps": 4})
    part.fit()
    rest = trainer(name, tmp_path, "part")
    rest.fit()
    assert same(whole.recipe.state_dict(), rest.recipe.state_dict())
    assert hash_of([tmp_path / "whole" / "metrics.jsonl"], tmp_path / "whole") == hash_of(
        [tmp_path / "part" / "metrics.jsonl"], tmp_path / "part"
    )


@every_recipe
def test_another_seed_makes_other_weights(name, tmp_path):
    data = tiny.data_for(name, tmp_path)
    results = []
    for seed in (0, 1):
        fitted = tiny.trainer_of(name, data, tmp_path / str(seed), seed)
        fitted.fit()
        results.append(fitted.recipe.state_dict())
    assert not same(*results)


@every_recipe
def test_it_trains_in_bfloat16(name, tmp_path):
    fitted = trainer(name, tmp_path, precision="bfloat16", steps=3)
    fitted.fit()
    assert {p.dtype for p in fitted.recipe.parameters()} == {torch.float32}


@pytest.mark.parametrize(("name", "loss"), sorted(tiny.FALLING.items()))
def test_a_tiny_data_set_is_learned(name, loss, tmp_path):
    fitted = trainer(name, tmp_path, steps=150, checkpoint_every=150)
    fitted.fit()
    values = [
        row[loss] for row in rows_of(latest_checkpoint(fitted.run).log.text.splitlines()) if loss in row
    ]
    assert fmean(values[-5:]) < values[0] - 0.1 * abs(values[0])


@those(Samples)
def test_a_sample_depends_on_the_seed_and_its_number_only(name, tmp_path):
    model = tiny.recipe_of(name, tiny.data_for(name, tmp_path)).eval()
    few, many, other = (
        latent.draw(model, 3, seed=5),
        latent.draw(model, 120, seed=5),
        latent.draw(model, 3, seed=6),
    )
    assert torch.equal(few, many[:3])
    assert not torch.equal(few, other)
    assert few.min() >= 0
    assert few.max() <= 1


@those(LogProb)
def test_log_det_matches_autograd(name, tmp_path):
    model = tiny.recipe_of(name, tiny.data_for(name, tmp_path)).double().eval()
    with torch.no_grad():
        model.log_scale.normal_(0, 0.3)
    x = torch.rand(1, tiny.SIDE, tiny.SIDE, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: model(v)[0], x).flatten(1)
    z = model(x)
    log_prior = -(torch.nn.functional.softplus(z) + torch.nn.functional.softplus(-z)).sum()
    assert torch.allclose(
        model.log_prob(x)[0], log_prior + torch.linalg.slogdet(jacobian).logabsdet, atol=1e-8
    )


@those(LogProb)
def test_the_inverse_inverts(name, tmp_path):
    model = tiny.recipe_of(name, tiny.data_for(name, tmp_path)).double().eval()
    x = torch.rand(4, tiny.SIDE, tiny.SIDE, dtype=torch.float64)
    assert torch.allclose(model.inverse(model(x)), x, atol=1e-12)


def test_the_density_of_nice_integrates_to_one():
    model = RECIPES["nice"](image_shape=(1, 2), hidden_dim=8, num_hidden=1).double()
    with torch.no_grad():
        model.log_scale.fill_(0.5)
    side = torch.linspace(-30, 30, 1201, dtype=torch.float64)
    x = torch.cartesian_prod(side, side).unsqueeze(1)
    with torch.no_grad():
        total = model.log_prob(x).exp().sum() * (side[1] - side[0]) ** 2
    assert abs(total - 1) < 1e-3


@those(Encodes, Decodes)
def test_codes_and_images_have_the_right_shapes(name, tmp_path):
    model = tiny.recipe_of(name, tiny.data_for(name, tmp_path)).eval()
    x = torch.rand(5, tiny.SIDE, tiny.SIDE)
    z = model.encode(x)
    assert z.shape == (5, model.latent_dim)
    assert model.decode(z).shape == x.shape


@those(Tags)
def test_an_answer_never_repeats_its_character_nor_is_forbidden(name, tmp_path):
    model = tiny.recipe_of(name, tiny.data_for(name, tmp_path)).eval()
    tokens = torch.randint(2, len(tiny.TOKENS), (30, 7))
    made = decoding.answer(model, tokens, {0, 1})
    assert not (made == tokens).any()
    assert (made > 1).all()
