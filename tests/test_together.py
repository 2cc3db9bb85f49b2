"""The slices of a process in one pass: the same bits as one after the other, and what cannot be done so is noticed."""

import hashlib
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from genpipe.recipe import Loss, Phase, Recipe, Update, mean_over
from genpipe.training import rules, together
from genpipe.training.checkpoint import latest_checkpoint
from genpipe.training.logical import Alone
from genpipe.training.runs import Run
from genpipe.training.stacked import Refused, Rule, Stacked, each
from genpipe.training.together import CHECKS, Held, differentiated
from genpipe.training.trainer import Trainer
from genpipe.training.trust import Trust, same
from tests import exactness, toys
from tests.reference import REFERENCE, registered

__all__ = ["registered"]
pytestmark = [pytest.mark.usefixtures("registered"), pytest.mark.long]
SHAPED = "makes tensors whose shape depends on what is in the slice"
APART = {  # the updates of the recipes that are computed slice by slice, and why
    "aae": {"reconstruct": "changes buffers"},
    "aae_class": {"reconstruct": "changes buffers"},
    "ali": {"critic": "changes buffers", "players": "changes buffers"},
    "bigan_qp": {"critic": "changes buffers", "players": "changes buffers"},
    "classifier, techniques": {"nll": "takes a gradient itself"},
    "conditional_lm": {"nll": SHAPED},
    "conditional_lm_whole": {"nll": SHAPED},
    "conditional_lm_vector": {"nll": SHAPED},
    "coupling_flow_batch": {"nll": "writes to a tensor that all slices share, by lerp_"},
    "glann": {"glo": "changes buffers"},
    "masked_lm": {"masked": SHAPED},
    "masked_lm_permuted": {"masked": "writes to a tensor that all slices share, by __setitem__"},
    "masked_lm_replaced": {"masked": SHAPED, "replaced": SHAPED},
    "masked_lm_runs": {"masked": "calls aten.view.default on tensors that no slice has"},
    "ogan": {"ogan": "changes buffers"},
    "ogan_class": {"ogan": "changes buffers"},
    "residual_flow": {"nll": "decides by what is in a slice"},
    "residual_flow_points": {"nll": "takes a gradient itself"},
    "residual_flow_series": {"nll": "takes a gradient itself"},
    "tokens": {"nll": "writes to a tensor that all slices share, by lerp_"},
    "energy_gan": {"energy": "takes a gradient itself", "generator": "changes buffers"},
    "energy_gan_points": {"energy": "takes a gradient itself"},
    "gan": {"critic": "changes buffers", "generator": "changes buffers"},
    "gan_old": {"critic": "changes buffers", "generator": "changes buffers"},
    "gan_single": {"gan": "takes a gradient itself"},
    "wgan_gp": {"critic": "takes a gradient itself", "generator": "changes buffers"},
}
NEVER = "buffers are cut by rows"


def ended(trainer: Trainer) -> str:
    """The MD5 of all that a training ends with."""
    trainer.fit()
    checkpoint = latest_checkpoint(trainer.run)
    assert checkpoint is not None
    tensors = (checkpoint.weights, checkpoint.average, checkpoint.optimiser)
    return hashlib.md5(b"".join([*map(save, tensors), checkpoint.log.text])).hexdigest()


@pytest.mark.parametrize("name", [*exactness.NAMES, *REFERENCE])
def test_a_training_ends_on_the_same_bits_together_in_turn_and_on_processes_of_which_one_dies(
    name, tmp_path, monkeypatch
):
    """The processes are forked, so they import nothing."""
    monkeypatch.setattr(together, "CHECKS", 1)  # more steps that are not computed both ways
    usual = exactness.trainer(name, tmp_path / "usual", Alone(), None)
    apart = exactness.trainer(name, tmp_path / "apart", Alone(), None)
    apart.turns.ways.never = "the control"
    usual.turns.ways.is_timed = False
    assert ended(usual) == ended(apart)
    (tmp_path / "processes").mkdir()
    assert exactness.digest(name, exactness.QUICK, tmp_path / "processes") == exactness.digest_of(
        usual.run.directory
    )
    if usual.turns.ways.never:
        assert usual.turns.ways.never == NEVER
        assert usual.recipe.sliced
        return
    assert usual.turns.ways.refused == APART.get(name.removesuffix(", accumulation"), {})
    played = {update.name for phase in usual.phases for update in phase.updates}
    assert {key[0] for key in usual.turns.ways.checked if usual.turns.ways.checked[key] >= 1} == played - {
        *usual.turns.ways.refused
    }


class Small(Recipe):
    """A layer, and a loss that a test says."""

    def __init__(self, loss, first=8, after=None) -> None:
        super().__init__()
        self.progress = self.kept = self.table = None
        torch.manual_seed(0)
        self.layer, self.last = nn.Linear(2, first), nn.Linear(first, 1)
        self.scale = nn.Parameter(torch.ones(first))
        self._loss, self._after = loss, after

    def phases(self):
        return (Phase("all", (Update("fit", self.fit, (self,), after=self.ended),)),)

    def fit(self, batch):
        self.progress = batch["progress"]
        return self._loss(self, batch["points"])

    def ended(self):
        if self._after:
            self._after(self)


def small_trainer(loss, directory, first=8, steps=6, after=None) -> Trainer:
    params = toys.training(solvers={"fit": {"lr": 0.1}}, steps=steps, batch_size=32)
    points: Any = toys.Points()
    return Trainer(Small(loss, first, after), points, params, 0, Alone(), Run(directory))


def both(loss, directory, **changes) -> Trainer:
    """A training that was seen to have the bits of one slice after the other."""
    usual, apart = (small_trainer(loss, directory / name, **changes) for name in ("usual", "apart"))
    apart.turns.ways.never = "the control"
    usual.turns.ways.is_timed = False
    assert ended(usual) == ended(apart)
    return usual


def used(recipe, x):
    return recipe.last(recipe.layer(x).tanh() * recipe.scale.exp()).squeeze(1)


def draws(recipe, x):
    noise = torch.randn(x.shape) + torch.rand_like(x)
    return Loss((F.dropout(used(recipe, x + noise), 0.3) ** 2).mean(), {"noise": noise.mean()})


def uses_twice(recipe, x):
    again = F.linear(recipe.layer(x), recipe.layer.weight.t())
    return Loss(used(recipe, x + recipe.layer(again) @ recipe.layer.weight).square().mean())


def weighs(recipe, x):
    return mean_over(used(recipe, x), x[:, 0] > 2, square=used(recipe, x).square())


@pytest.mark.parametrize("loss", [draws, uses_twice, weighs])
def test_what_a_slice_has_of_its_own_stays_its_own(loss, tmp_path):
    """Random draws, a parameter outside of a layer, one in two layers, the number of units of a slice."""
    assert both(loss, tmp_path).turns.ways.refused == {}


def decides(recipe, x):
    return Loss(used(recipe, x).mean() * (2 if x[0, 0] > 2 else 1))


def reads(recipe, x):
    return Loss(used(recipe, x).mean() * x.max().item())


def selects(recipe, x):
    return Loss(used(recipe, x[x[:, 0] > 2]).square().mean())


def penalises(recipe, x):
    value = used(recipe, x).square().mean()
    (slope,) = torch.autograd.grad(value, recipe.layer.weight, create_graph=True)
    return Loss(value + slope.square().mean())


def reaches_behind(recipe, x):
    return Loss(used(recipe, x).mean() + 0 * recipe.scale.data.sum())


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (decides, "decides by what is in a slice"),
        (reads, "decides by what is in a slice"),
        (selects, SHAPED),
        (penalises, "takes a gradient itself"),
        (reaches_behind, "uses .data"),
    ],
)
def test_what_cannot_be_computed_together_is_computed_slice_by_slice(loss, reason, tmp_path):
    assert both(loss, tmp_path).turns.ways.refused == {"fit": reason}


class Turned(torch.autograd.Function):
    """The gradient turned round: what torch does not show to stand-ins."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):  # pyright: ignore[reportIncompatibleMethodOverride]
        return -g


def turns(recipe, x):
    value = used(recipe, x).square().mean()
    return Loss(value + Turned.apply(recipe.layer(x)).square().mean() if recipe.progress > 0.5 else value)


def replays(recipe, x):
    """The same dropout twice, once half of the training is over."""
    value = used(recipe, x).square().mean()
    if recipe.progress > 0.5:
        state = torch.get_rng_state()
        first = F.dropout(recipe.layer(x), 0.5)
        torch.set_rng_state(state)
        value = value + (first * F.dropout(recipe.layer(x), 0.3)).mean()
    return Loss(value)


@pytest.mark.parametrize("loss", [turns, replays])
def test_what_a_loss_does_only_later_is_checked_then(loss, tmp_path):
    assert both(loss, tmp_path, steps=12).turns.ways.refused == {"fit": "has other bits on more rows"}


def seeds(recipe, x):
    value = used(recipe, x).square().mean()
    if recipe.progress > 0.5:
        torch.manual_seed(3)
        value = value + F.dropout(recipe.layer(x), 0.5).square().mean()
    return Loss(value)


def test_a_draw_does_not_hide_one_that_is_not_known(tmp_path):
    reasons = both(seeds, tmp_path, steps=12).turns.ways.refused
    assert reasons == {"fit": "draws random numbers in an operation that is not known to be random"}


def warms_up(recipe, x):
    """Three uses of one tensor: slice by slice, over all slices, slice by slice; the last one begins to count later."""
    h = recipe.layer(x)
    value = -0.3 * h.mean(0).square().sum()
    value = value + recipe.last(h.tanh() * recipe.scale.exp()).square().mean()
    return Loss(value + F.relu(recipe.progress - 0.5) * h.norm(dim=1).sum())


def test_gradients_of_a_tensor_that_is_used_often_add_up_in_order(tmp_path):
    assert both(warms_up, tmp_path, steps=12).turns.ways.refused == {}


def keeps(recipe, x):
    """A mask that is made once, and what a slice computed."""
    if recipe.table is None:
        recipe.table = x.new_ones(len(x), len(x)).tril()
    recipe.kept = used(recipe, recipe.table @ x)
    return Loss(recipe.kept.square().mean())


def test_what_a_loss_leaves_on_its_module_is_the_tensor_of_the_last_slice(tmp_path):
    seen: list[float] = []
    trainer = both(keeps, tmp_path, steps=8, after=lambda recipe: seen.append(recipe.kept.sum().item()))
    assert trainer.turns.ways.refused == {}
    assert seen[:8] == seen[8:]
    assert type(trainer.recipe.table) is torch.Tensor


def writes(recipe, x):
    """Its decision comes out otherwise in one slice, after some steps."""
    x.mul_(1.5)
    return Loss(used(recipe, x).square().mean() * (2 if x.max() > 7 else 1))


def sets(recipe, x):
    recipe.scale.data = recipe.scale.detach().clamp(0.5, 1.01)
    return Loss(used(recipe, x).square().mean())


def shortens(recipe, x):
    ids = (x > 2).long()
    return Loss(
        used(recipe, F.embedding(ids, recipe.layer.weight, max_norm=2.0)[:, 0]).sub(9).square().mean()
    )


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (writes, "writes to its batch"),
        (sets, "changes a tensor by __set__"),
        (shortens, "changes the table of an embedding"),
    ],
)
def test_a_loss_that_changes_what_outlives_it_is_computed_slice_by_slice(loss, reason, tmp_path):
    assert both(loss, tmp_path, steps=12).turns.ways.refused == {"fit": reason}


def test_batches_of_ever_new_shapes_are_not_worth_it(tmp_path, monkeypatch):
    monkeypatch.setattr(together, "KINDS", 2)

    def grows(recipe, x):
        value = used(recipe, x)
        for _ in range(int(recipe.progress * 12) // 3):
            value = value * 2
        return Loss(value.mean())

    trainer = both(grows, tmp_path, steps=12)
    assert trainer.turns.ways.refused == {"fit": "has batches of too many shapes, or too many ways"}
    assert len(trainer.turns.ways.checked) == 2


SPECIAL = [0.0, -0.0, 1.0, float("inf"), -float("inf"), float("nan"), 1e-45, 0.3, -2.5]


@pytest.mark.filterwarnings("ignore")  # of overloads that are no longer wanted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.bfloat16])
def test_exact_operations_have_the_bits_of_the_slices_wherever_a_number_stands(dtype):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.tensor(SPECIAL)[torch.randint(9, (4, 21), generator=generator)].to(dtype) for _ in "xy")
    if dtype == torch.complex64:
        x, y = (torch.randn(4, 21, dtype=dtype, generator=generator) for _ in "xy")
    a, b = Stacked.of_whole(x), Stacked.of_whole(y)
    exact = {
        func: rule.run
        for func, rule in rules.RULES.items()
        if rule.exact and rule.run.__qualname__.startswith(("elementwise", "bounded"))
    }
    assert len(exact) > 60
    for func, run in exact.items():
        for args in ((a,), (a, b), (a, 0.3), (a, 0.0, 1.0)):
            try:
                apart = each(4, func, args, {})
            except (TypeError, RuntimeError, Refused):
                continue  # not an operation of such arguments
            whole = run(4, *args)
            if isinstance(whole, Stacked):
                assert all(same(*pair) for pair in zip(whole.parts, apart.parts, strict=True)), func


def test_a_draw_by_an_operation_that_is_not_known_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("genpipe.training.stacked.RANDOM", frozenset())
    reasons = both(draws, tmp_path).turns.ways.refused
    assert reasons == {"fit": "draws random numbers in an operation that is not known to be random"}


def plain(recipe, x):
    return Loss(used(recipe, x).square().mean())


def shifted(num_slices, x, weight, bias=None):
    """A product with other last bits in one row of the last slice."""
    made = rules.linear(num_slices, x, weight, bias)
    shift = torch.zeros_like(made.whole)
    shift[-1, -1, -1] = 1e-6
    return Stacked.of_whole(made.whole + shift)


@pytest.mark.parametrize(
    ("is_exact", "refused"), [(False, {}), (True, {"fit": "has other bits on more rows"})]
)
def test_other_bits_of_an_operation_are_noticed(is_exact, refused, tmp_path, monkeypatch):
    """Where it is tried on random numbers it alone is computed slice by slice; else the whole update is."""
    monkeypatch.setitem(rules.RULES, F.linear, Rule(shifted, is_exact))
    assert both(plain, tmp_path).turns.ways.refused == refused


def test_a_wrong_order_of_the_sum_is_noticed(tmp_path, monkeypatch):
    def in_turn(gs, xs, node):
        parts = [g.t().mm(x) for g, x in zip(gs, xs, strict=True)][node[0] : node[1]]
        return sum(reversed(parts[:-1]), parts[-1])

    monkeypatch.setattr("genpipe.training.layers._adds_up_at", lambda *sizes: True)
    monkeypatch.setattr("genpipe.training.layers._sum_of_products", in_turn)
    assert both(plain, tmp_path).turns.ways.refused == {"fit": "has other bits on more rows"}


def test_a_check_on_gradients_that_are_all_zeros_does_not_count(tmp_path):
    """Behind a layer that starts at zero nothing shows in the first step."""
    trainer = small_trainer(lambda r, x: Loss((used(r, x) - x.sum(1)).square().mean()), tmp_path)
    for parameter in trainer.recipe.get_submodule("last").parameters():
        nn.init.zeros_(parameter)
    counts = []
    for _ in range(6):
        trainer._play_step()
        trainer.step += 1
        counts.append(sum(trainer.turns.ways.checked.values()))
    assert counts == [0, *range(1, CHECKS + 1), CHECKS, CHECKS][:6]
    assert trainer.turns.ways.refused == {}


def test_zeros_that_stay_are_waited_for_a_while(tmp_path):
    trainer = both(
        lambda r, x: Loss(r.last(r.layer(x)).square().mean() + 0 * r.scale.sum()), tmp_path, steps=10
    )
    assert trainer.turns.ways.refused == {"fit": "has gradients that are all zeros"}


@pytest.mark.parametrize("run", [(0, 2), (2, 4), (1, 4), (0, 5)])
def test_the_sums_of_each_subtree_are_those_of_slice_after_slice(run, monkeypatch):
    """Of a process that holds any run of the slices, where products can be added to a sum."""
    monkeypatch.setattr("genpipe.training.layers._adds_up_at", lambda *sizes: True)
    recipe, points = Small(plain, first=40), torch.randn(5 * 16, 2)
    parameters = list(recipe.parameters())[1:3]
    held = Held(run, 5, 16)
    made = differentiated(
        lambda batch: Loss(recipe.last(recipe.layer(batch["points"])).square().mean()),
        {"points": points},
        held,
        parameters,
        list(recipe.parameters()),
        [0] * (run[1] - run[0]),
        Trust(),
    )
    rows = {v: row for v, (_, row) in zip(range(*run), made, strict=True)}
    for first, last in held.nodes():
        assert None not in rows[first]
        if last - first > 1:
            assert None in rows[last - 1]  # the weight, which the first slice has the sum of
    for a, b in [(v, v + 1) for v in range(*run) if (v, v + 1) in held.nodes()]:
        loss = recipe.last(recipe.layer(points[a * 16 : b * 16])).square().mean()
        right = torch.autograd.grad(loss, parameters)
        assert all(x is not None and same(x, y) for x, y in zip(rows[a], right, strict=True))


@pytest.mark.parametrize("size", [1, 3, 8, 64, 65])
def test_trusted_operations_have_the_bits_of_the_slices_on_other_numbers(size):
    trust, weight, bias = Trust(), torch.randn(5, size), torch.randn(5)
    operations: list[tuple[Any, tuple[Any, ...]]] = [
        (F.linear, (weight, bias)),
        (torch.sigmoid, ()),
        (torch.softmax, (-1,)),
        (torch.exp, ()),
    ]
    for func, others in operations:
        rule = rules.RULES[func]
        for draw in range(20):
            x = Stacked.of_whole(torch.randn(4, 7, size, generator=torch.Generator().manual_seed(draw)))
            made = rule.run(4, x, *others)
            if made is NotImplemented or not trust(rule, 4, func, (x, *others), {}):
                assert size % 64  # whole vectors are always computed together
                break
            assert all(same(part, func(x.parts[v], *others)) for v, part in enumerate(made.parts))
