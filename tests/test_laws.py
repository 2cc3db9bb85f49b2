"""Laws that hold for every recipe, or for every recipe with a capability; those of genpipe and those of tests/reference."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from genpipe.capabilities import (
    Classifies,
    Decodes,
    Embeds,
    Encodes,
    Energy,
    Example,
    Invertible,
    LogProb,
    NextToken,
    Samples,
    Tags,
)
from genpipe.data.loader import Data, read_description
from genpipe.evaluation.judges import JUDGES
from genpipe.metrics import explained
from genpipe.models import RECIPES
from genpipe.recipe import Recipe, Update
from genpipe.sampling import decoding
from genpipe.sampling.draw import conditions, draw, first, in_fixed_chunks, rows_of
from genpipe.sampling.panels import PANELS, as_values
from genpipe.sampling.text import marks_of
from genpipe.training.buffers import Buffers
from genpipe.training.checkpoint import latest_checkpoint
from genpipe.training.log import rows_of as rows_of_log
from genpipe.training.trainer import Trainer
from tests import tiny
from tests.reference import REFERENCE, registered

__all__ = ["registered"]
pytestmark = [pytest.mark.usefixtures("registered"), pytest.mark.long]
every_recipe = pytest.mark.parametrize("name", sorted(tiny.MODELS))


def those(*capabilities: type) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", tiny.names_with(*capabilities, among=tiny.MODELS))


def those_with_one(*capabilities: type) -> pytest.MarkDecorator:
    names = {name for capability in capabilities for name in tiny.names_with(capability, among=tiny.MODELS)}
    return pytest.mark.parametrize("name", sorted(names))


def trainer(name: str, root: Path, run: str = "run", **changes) -> Trainer:
    return tiny.trainer_of(name, tiny.data_for(name, root), root / run, **changes)


def weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    return copy.deepcopy(recipe.state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_list_of_recipes_equals_the_folder_and_each_has_a_page():
    root = Path(__file__).parent.parent
    folder, pages = root / "genpipe" / "models", root / "docs" / "models"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(tiny.BLOCKS)
    assert set(RECIPES) == {*tiny.BLOCKS, *REFERENCE}
    assert {path.stem for path in pages.glob("*.md")} == set(tiny.BLOCKS)
    systems = (root / "docs" / "systems.md").read_text(encoding="utf-8")
    assert [name for name in tiny.BLOCKS if f"(models/{name}.md)" not in systems] == []


Whole = Callable[[str], tuple[dict[str, Tensor], Trainer]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    """The weights that a recipe begins with, and its training from the first step to the last: one for several laws."""

    @functools.cache
    def of(name: str) -> tuple[dict[str, Tensor], Trainer]:
        fitted = trainer(name, tmp_path_factory.mktemp("whole"))
        before = weights(fitted.recipe)
        fitted.fit()
        return before, fitted

    return of


@every_recipe
def test_every_parameter_is_trained_by_some_phase(name, whole: Whole):
    before, fitted = whole(name)
    unmoved = [key for key, value in fitted.recipe.named_parameters() if torch.equal(before[key], value)]
    assert not unmoved


@every_recipe
def test_resuming_ends_on_the_same_bits(name, whole: Whole, tmp_path):
    _, undisturbed = whole(name)
    part = trainer(name, tmp_path, "part")
    part.params = part.params.model_copy(update={"steps": 4})
    part.fit()
    rest = trainer(name, tmp_path, "part")
    rest.fit()
    assert same(undisturbed.recipe.state_dict(), rest.recipe.state_dict())
    assert metrics_of(undisturbed) == metrics_of(rest)


def metrics_of(fitted: Trainer) -> bytes:
    return (fitted.run.directory / "metrics.jsonl").read_bytes()


@every_recipe
def test_another_seed_makes_other_weights(name, whole: Whole, tmp_path):
    _, usual = whole(name)
    seeded = tiny.trainer_of(name, tiny.data_for(name, tmp_path), tmp_path / "run", seed=1)
    seeded.fit()
    assert not same(usual.recipe.state_dict(), seeded.recipe.state_dict())


@every_recipe
def test_it_trains_in_bfloat16(name, tmp_path):
    fitted = trainer(name, tmp_path, precision="bfloat16", steps=3)
    fitted.fit()
    assert {p.dtype for p in fitted.recipe.parameters()} == {torch.float32}


@pytest.mark.parametrize(("name", "loss"), sorted(tiny.FALLING.items()))
def test_a_tiny_data_set_is_learned(name, loss, tmp_path):
    """In a hundred steps; most need no more than twenty."""
    assert any(is_learned(name, loss, tmp_path / str(steps), steps) for steps in (20, 50, 100))


def is_learned(name: str, loss: str, root: Path, steps: int) -> bool:
    """Whether the loss falls by a tenth."""
    fitted = trainer(name, root, steps=steps, checkpoint_every=steps)
    fitted.fit()
    values = [row[loss] for row in rows_of_training(fitted) if loss in row]
    return fmean(values[-5:]) < values[0] - 0.1 * abs(values[0])


def rows_of_training(fitted: Trainer) -> list[dict[str, float]]:
    return rows_of_log(latest_checkpoint(fitted.run).log.text.splitlines())


@pytest.mark.parametrize("name", sorted(tiny.MODELS.keys() - REFERENCE.keys()))
def test_every_metric_of_a_training_has_a_text(name, whole: Whole):
    """A curve without one is shown under the name of its column."""
    _, fitted = whole(name)
    columns = {column for row in rows_of_training(fitted) for column in row} - {"step"}
    assert f"{fitted.recipe.phases()[0].updates[0].name}.loss" in columns
    assert [column for column in sorted(columns) if explained(column).label == column] == []


@every_recipe
def test_it_is_judged_and_shown_by_something(name):
    make, kind = tiny.MODELS[name], tiny.kind_of(name)
    judges = [judge for judge in JUDGES if kind in judge.kinds]
    panels = [panel for panel in PANELS if not panel.kinds or kind in panel.kinds]
    for found in (judges, panels):
        assert any(all(issubclass(make, need) for need in one.needs) for one in found)


def model_and_data(name: str, root: Path) -> tuple[Any, Data]:
    """A model whose parameters are not those of a start, which may be zeros."""
    data = tiny.data_for(name, root)
    model = tiny.recipe_of(name, data).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, data


def drawn(model: Any, data: Data, n: int, seed: int, given: Example, how: dict[str, Any]) -> Example:
    """What a model draws or writes."""
    if isinstance(model, Samples):
        return draw(model, n, seed, given, how)
    marks, options = (
        marks_of(data.facts, read_description(data.directory)["kind"]),
        {**how, "method": "nucleus"},
    )
    write = lambda rows, part: decoding.write(model, rows, part, marks, **options)
    return in_fixed_chunks(write, n, seed, given)


@those_with_one(Samples, NextToken)
def test_a_sample_depends_on_the_seed_its_number_and_its_condition_only(name, tmp_path):
    model, data = model_and_data(name, tmp_path)
    given, how = conditions(model, data, 120), tiny.how_of(name)
    some = {key: value[:4] for key, value in given.items()}
    others = {key: value[[0, 3, 1, 2]] for key, value in some.items()}
    few, many, beside, seeded = (
        drawn(model, data, *asked, how)
        for asked in ((4, 5, some), (120, 5, given), (4, 5, others), (4, 6, some))
    )
    for key, value in few.items():
        assert torch.equal(value, many[key][:4])
        assert torch.equal(value[0], beside[key][0])
    assert not same(few, seeded)
    assert same(few, beside) == (not given)
    if "images" in few:
        assert few["images"].min() >= 0
        assert few["images"].max() <= 1


ANSWERS = {
    Classifies: "classify",
    Embeds: "embed",
    Encodes: "encode",
    Energy: "energy",
    LogProb: "log_prob",
    Tags: "tag",
}
LENGTHS = {
    "ids": "lengths",
    "tags": "lengths",
    "source": "source_lengths",
    "target": "target_lengths",
    "question": "question_lengths",
    "passages": "passage_lengths",
    "answer": "answer_lengths",
}


def answers(model: Any, x: Example, start: int) -> list[Tensor]:
    """What a model says of examples, each with a row an example."""
    found = [getattr(model, how)(x) for capability, how in ANSWERS.items() if isinstance(model, capability)]
    if isinstance(model, NextToken):
        state = model.begin({key: x[key] for key in model.given}, rows_of(x))
        found.append(model.next(torch.full((rows_of(x),), start), state)[0])
    return found


def alone(x: Example, row: int) -> Example:
    """One example, without the padding that the others make necessary."""
    one = {key: value[row : row + 1] for key, value in x.items()}
    longest = {key: max(1, int(one[lengths].max())) for key, lengths in LENGTHS.items() if lengths in one}
    return {key: value[..., : longest[key]] if key in longest else value for key, value in one.items()}


def doubled(x: Example) -> Example:
    return {
        key: value.double() if value.is_floating_point() else value for key, value in as_values(x).items()
    }


@those_with_one(*ANSWERS, NextToken)
def test_padding_and_neighbours_do_not_change_an_answer(name, tmp_path):
    model, data = model_and_data(name, tmp_path)
    model.double()
    x, start = doubled(first(data, 6)), data.facts.get("start", 0)
    with torch.no_grad():
        together = answers(model, x, start)
        for row in range(6):
            for of_all, own in zip(together, answers(model, alone(x, row), start), strict=True):
                places = tuple(slice(size) for size in own[0].shape)
                assert torch.allclose(of_all[row][places], own[0], rtol=1e-9, atol=1e-12)


@those(Invertible)
def test_the_log_determinant_is_that_of_the_jacobian(name, tmp_path):
    """That of an estimate is in the tests of its model."""
    model, x, key = invertible(name, tmp_path)
    if model.tightness != "exact":
        pytest.skip("its log-determinant is an estimate")
    one = {other: value[:1] for other, value in x.items()}
    jacobian = torch.autograd.functional.jacobian(lambda v: model.forward({**one, key: v})[0][0], one[key])
    z, log_det = model.forward(one)
    assert torch.allclose(log_det[0], torch.linalg.slogdet(jacobian.flatten(1)).logabsdet, atol=1e-8)
    assert torch.allclose(model.log_prob(one), model.prior_log_prob(z, one) + log_det)


@those(Invertible)
def test_the_inverse_inverts(name, tmp_path):
    model, x, _ = invertible(name, tmp_path)
    for key, made in model.inverse(model.forward(x)[0], x).items():
        assert torch.allclose(made, x[key], atol=1e-10)


def invertible(name: str, root: Path) -> tuple[Any, Example, str]:
    """A model in double precision, two test examples, and which of their tensors it maps to latents."""
    model, data = model_and_data(name, root)
    x = doubled(first(data, 2))
    (key,) = model.double().inverse(model.forward(x)[0], x)
    return model, {**x, key: torch.rand_like(x[key])}, key


@those(Encodes, Decodes)
def test_codes_and_what_they_decode_to_have_the_right_shapes(name, tmp_path):
    data = tiny.data_for(name, tmp_path)
    model = tiny.recipe_of(name, data).eval()
    x = as_values(first(data, 5))
    z = model.encode(x)
    assert z.shape == (5, model.latent_dim)
    for key, made in model.decode(z, x).items():
        assert made.shape == x[key].shape


def logits_of(model: NextToken, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Logits after each of some tokens, [n, time, num_tokens], and the state after all."""
    steps = []
    for column in ids.T:
        logits, state = model.next(column, state)
        steps.append(logits)
    return torch.stack(steps, 1), state


@those(NextToken)
def test_the_next_token_depends_on_those_before_it_only(name, tmp_path):
    """Logits at a place are the same whatever comes later, also where a state goes on twice, as in a search."""
    model, data = model_and_data(name, tmp_path)
    given = conditions(model, data, 4)
    texts = torch.randint(2, len(tiny.TOKENS), (2, 4, 6))
    texts[1, :, :3] = texts[0, :, :3]
    with torch.no_grad():
        one, other = (logits_of(model, ids, model.begin(given, 4))[0] for ids in texts)
        assert torch.equal(one[:, :3], other[:, :3])
        assert not torch.allclose(one[:, 3:], other[:, 3:])
        _, state = logits_of(model, texts[0, :, :3], model.begin(given, 4))
        rows = torch.tensor([2, 0, 0, 1])
        for ids, whole in zip(texts, (one, other), strict=True):
            rest, _ = logits_of(model, ids[rows, 3:], decoding.take(state, rows))
            assert torch.allclose(rest, whole[rows, 3:], atol=1e-6)


COMPARES_ROWS = ("similarity_pairs",)  # with the others of their slice, so that another cut is another loss


def draws_nothing(update: Update, batch: Example) -> bool:
    """Whether a loss leaves the random numbers as they are."""
    state = torch.random.get_rng_state()
    update.loss(batch)
    return torch.equal(state, torch.random.get_rng_state())


@every_recipe
def test_four_slices_give_the_gradients_of_one_where_the_loss_draws_nothing(name, tmp_path):
    """Of a network that does not look at other rows of its batch; batch normalisation, replay buffers and losses of pairs see a slice."""
    whole, cut = (trainer(name, tmp_path, f"run{n}", logical_workers=n) for n in (1, 4))
    looks = any(isinstance(module, _BatchNorm) for module in whole.recipe.modules())
    if whole.recipe.sliced or looks or name in COMPARES_ROWS:
        pytest.skip("it looks at other rows of its slice")
    batch = {**whole.data.train_batch(0, 0, 8), "progress": torch.tensor(0.0)}
    updates = [update for phase in whole.recipe.phases() for update in phase.updates]
    names = [update.name for update in updates if draws_nothing(update, batch)]
    if not names:
        pytest.skip("each of its losses draws random numbers")
    for update in names:
        for one, four in zip(*(gradients(fitted, update) for fitted in (whole, cut)), strict=True):
            assert (one - four).norm() <= 1e-6 * one.norm()


def gradients(fitted: Trainer, name: str) -> list[Tensor]:
    """The gradients of an update in double precision."""
    fitted.recipe.double()
    fitted.buffers = fitted.turns.buffers = Buffers(
        fitted.recipe, fitted.params.logical_workers
    )  # double() made others
    (played,) = (u for phase in fitted.recipe.phases() for u in phase.updates if u.name == name)
    batch = fitted._batch(0)
    double = {key: value.double() for key, value in batch.items() if value.is_floating_point()}
    found = fitted.turns.play(played, {**batch, **double}, fitted.step).gradients
    assert found
    return found
