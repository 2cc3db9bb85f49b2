"""Laws that hold for every recipe, or for every recipe with a capability."""

import copy
import tempfile
from pathlib import Path
from statistics import fmean

import pytest
import torch

from genpipe.capabilities import Decodes, Encodes, Example, Invertible, Samples
from genpipe.evaluation.judges import JUDGES
from genpipe.files import hash_of
from genpipe.models import RECIPES
from genpipe.recipe import Recipe
from genpipe.sampling import decoding
from genpipe.sampling.draw import conditions, draw, first
from genpipe.sampling.panels import PANELS
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


@every_recipe
def test_it_is_judged_and_shown_by_something(name):
    make, kind = RECIPES[name], tiny.kind_of(name)
    assert [j for j in JUDGES if kind in j.kinds and all(issubclass(make, need) for need in j.needs)]
    assert [
        p for p in PANELS if (not p.kinds or kind in p.kinds) and all(issubclass(make, n) for n in p.needs)
    ]


@those(Samples)
def test_a_sample_depends_on_the_seed_its_number_and_its_condition_only(name, tmp_path):
    data = tiny.data_for(name, tmp_path)
    model = tiny.recipe_of(name, data).eval()
    given, how = conditions(model, data, 120), tiny.BLOCKS[name].get("how", {})
    some = {key: value[:3] for key, value in given.items()}
    few, many, other = (
        draw(model, 3, 5, some, how),
        draw(model, 120, 5, given, how),
        draw(model, 3, 6, some, how),
    )
    for key in few:
        assert torch.equal(few[key], many[key][:3])
        assert not torch.equal(few[key], other[key])
    if "images" in few:
        assert few["images"].min() >= 0
        assert few["images"].max() <= 1


def perturbed(name: str, root: Path) -> tuple[Recipe, Example]:
    """A model in double precision whose parameters are not those of a start, and two test examples."""
    data = tiny.data_for(name, root)
    model = tiny.recipe_of(name, data).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    key = {"images": "images", "points": "points"}[tiny.kind_of(name)]
    x = first(data, 2)
    return model, {**x, key: torch.rand(x[key].shape, dtype=torch.float64)}


@those(Invertible)
def test_the_log_determinant_is_that_of_the_jacobian(name, tmp_path):
    model, x = perturbed(name, tmp_path)
    key = next(iter(model.inverse(model.forward(x)[0], x)))
    one = {other: value[:1] for other, value in x.items()}
    jacobian = torch.autograd.functional.jacobian(lambda v: model.forward({**one, key: v})[0][0], one[key])
    z, log_det = model.forward(one)
    assert torch.allclose(log_det[0], torch.linalg.slogdet(jacobian.flatten(1)).logabsdet, atol=1e-8)
    assert torch.allclose(model.log_prob(one), model.prior_log_prob(z, one) + log_det)


@those(Invertible)
def test_the_inverse_inverts(name, tmp_path):
    model, x = perturbed(name, tmp_path)
    for key, made in model.inverse(model.forward(x)[0], x).items():
        assert torch.allclose(made, x[key], atol=1e-10)


def test_the_density_of_nice_integrates_to_one():
    model = RECIPES["nice"](image_shape=(1, 1, 2), hidden_dim=8, num_hidden=1).double()
    with torch.no_grad():
        model.log_scale.fill_(0.5)
    side = torch.linspace(-30, 30, 1201, dtype=torch.float64)
    x = torch.cartesian_prod(side, side).view(-1, 1, 1, 2)
    with torch.no_grad():
        total = model.log_prob({"images": x}).exp().sum() * (side[1] - side[0]) ** 2
    assert abs(total - 1) < 1e-3


@those(Encodes, Decodes)
def test_codes_and_images_have_the_right_shapes(name, tmp_path):
    data = tiny.data_for(name, tmp_path)
    model = tiny.recipe_of(name, data).eval()
    x = {**first(data, 5), "images": torch.rand(5, 1, tiny.SIDE, tiny.SIDE)}
    z = model.encode(x)
    assert z.shape == (5, model.latent_dim)
    assert model.decode(z, x)["images"].shape == x["images"].shape


def test_an_answer_never_repeats_its_character_nor_is_forbidden(tmp_path):
    model = tiny.recipe_of("couplet", tiny.data_for("couplet", tmp_path)).eval()
    source = torch.randint(2, len(tiny.TOKENS), (30, 7))
    made = decoding.answer(model, {"source": source}, {0, 1})
    assert not (made == source).any()
    assert (made > 1).all()


def drawing_nothing() -> list[tuple[str, str]]:
    """Each update whose loss draws no random number, by recipe and name."""
    found: list[tuple[str, str]] = []
    for name in sorted(RECIPES):
        with tempfile.TemporaryDirectory() as directory:
            fitted = trainer(name, Path(directory))
            batch = {**fitted.data.train_batch(0, 0, 8), "progress": torch.tensor(0.0)}
            for update in (update for phase in fitted.recipe.phases() for update in phase.updates):
                if not fitted.recipe.sliced:
                    state = torch.random.get_rng_state()
                    update.loss(batch)
                    if torch.equal(state, torch.random.get_rng_state()):
                        found.append((name, update.name))
    return found


@pytest.mark.parametrize(("name", "update"), drawing_nothing())
def test_four_slices_give_the_gradients_of_one(name, update, tmp_path):
    """Of a network that does not look at other rows of its batch; batch normalisation sees a slice."""
    tiny.require_gradients_of_one(name, update, tmp_path)
