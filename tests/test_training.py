import hashlib
import importlib.util
import json
import threading

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.params.training import Solver as SolverParams
from genpipe.recipe import Loss, Phase, Recipe, Update
from genpipe.training import complaints, watching
from genpipe.training.averages import corrected
from genpipe.training.checkpoint import latest_checkpoint
from genpipe.training.log import Log
from genpipe.training.logical import Alone
from genpipe.training.runs import STREAM, Run
from genpipe.training.solver import schedule
from genpipe.training.trainer import Trainer, phase_starts
from genpipe.training.watching import Tail, _follow, watched
from tests import toys

# ---------------------------------------------------------------------------------------------------- the trainer


def test_an_update_moves_its_own_modules_only(tmp_path):
    trainer = toys.trainer(Run(tmp_path))
    for update, mine, other in (("critic", "critic", "generator"), ("generator", "generator", "critic")):
        before = {key: value.clone() for key, value in trainer.recipe.named_parameters()}
        chosen = next(u for phase in trainer.phases for u in phase.updates if u.name == update)
        turn = trainer.turns.play(chosen, trainer._batch(0), 0)
        trainer.solvers[update].step(turn.gradients, turn.value, 0)
        moved = {
            key.split(".")[0]
            for key, value in trainer.recipe.named_parameters()
            if not value.equal(before[key])
        }
        assert moved == {mine}
        assert other not in moved


def test_phases_and_turns_come_in_order(tmp_path):
    toys.trainer(Run(tmp_path)).fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    played = [sorted({key.split(".")[0] for key in line} - {"step"}) for line in lines]
    assert played[:4] == [["fit"]] * 4
    assert played[4:] == [["critic"], ["critic", "generator"]] * 3


def test_buffers_follow_the_batch(tmp_path):
    trainer = toys.trainer(Run(tmp_path))
    trainer.fit()
    assert trainer.recipe.mean.abs().min() > 1  # `prepare` ran
    turns = 4 + 6 + 3
    assert trainer.recipe.generator[1].num_batches_tracked == turns


def test_a_resumed_training_ends_on_the_same_bits_after_any_step(tmp_path):
    whole = toys.trainer(Run(tmp_path / "whole"))
    whole.fit()
    for stop in (2, 4, 8):
        part = toys.trainer(Run(tmp_path / str(stop)))
        part.params = part.params.model_copy(update={"steps": stop})
        part.fit()
        rest = toys.trainer(Run(tmp_path / str(stop)))
        rest.fit()
        assert all(
            value.equal(rest.recipe.state_dict()[key]) for key, value in whole.recipe.state_dict().items()
        )


def test_phase_shares_cut_the_budget():
    phases = tuple(Phase(str(i), (), share) for i, share in enumerate((1, 1, 2)))
    assert phase_starts(phases, 100) == [0, 25, 50]


class Broken(Recipe):
    def __init__(self, value):
        super().__init__()
        self.used, self.extra, self.value = nn.Linear(2, 1), nn.Linear(2, 1), value

    def phases(self):
        modules = (self.used, self.extra) if self.value == 1 else (self.used,)
        return (Phase("only", (Update("sum", self.loss, modules),)),)

    def loss(self, batch):
        return Loss(self.used(batch["points"]).sum() * self.value)


def broken(value, directory) -> Trainer:
    params = toys.training(solvers={"sum": {}})
    return Trainer(Broken(value), toys.Points(), params, 0, Alone(), Run(directory))


def test_an_update_that_does_not_reach_a_parameter_names_it(tmp_path):
    with pytest.raises(
        BadInput, match=r"update 'sum' of Broken at step 0 does not reach extra.weight, extra.bias; drop"
    ):
        broken(1, tmp_path).fit()


def test_a_loss_that_is_not_finite_stops_with_its_name_and_step(tmp_path):
    with pytest.raises(
        BadInput, match=r"update 'sum' of Broken at step 0 is not finite: sum.loss (nan|inf|-inf); lower"
    ):
        broken(float("inf"), tmp_path).fit()


class Pairs(Broken):
    """A loss of two numbers."""

    def loss(self, batch):
        return super().loss(batch)._replace(metrics={"pair": torch.ones(2)})


def test_a_metric_of_two_numbers_is_refused_by_name(tmp_path):
    solvers = {"sum": {"optimiser": "sgd", "lr": 0.1}}
    trainer = Trainer(Pairs(2.0), toys.Points(), toys.training(solvers=solvers), 0, Alone(), Run(tmp_path))
    with pytest.raises(
        BadInput, match=r"'sum' of Pairs at step 0: pair must be one number, not of shape \[2\]"
    ):
        trainer.fit()


def test_a_training_in_which_nothing_happens_is_refused():
    with pytest.raises(BadInput, match="the update 'u' has no turn within 1 steps"):
        complaints.refuse_idle(
            [Phase("rare", (Update("u", None, (), every=2),))], [0, 1], toys.training(steps=1)
        )
    with pytest.raises(BadInput, match="none has a share above 0"):
        complaints.refuse_ambiguous([Phase("none", (), share=0.0)])


# the toy has 24 turns of `fit`, then 36 of `critic` and 18 of `generator`, each second step
UNLEARNABLE = {
    "accumulate": (
        {"fit": {"accumulate": 1000}},
        r"solvers\.fit\.accumulate: 1000 batches .* the update has 24 turns within 60 steps, so it makes none; "
        "take at most 24",
    ),
    "accumulate, by one": ({"generator": {"accumulate": 19}}, "19 batches .* 18 turns within 60 steps"),
    "warm-up": (
        {"critic": {"warmup": 100_000}},
        r"solvers\.critic\.warmup: a warm-up of 100000 steps is longer .* is step 60; take at most 60",
    ),
    "warm-up, of a phase that ends before": (
        {"fit": {"warmup": 25}},
        "25 steps .* whose last turn is step 24",
    ),
    "points beyond the end": (
        {"fit": {"piecewise": {0: 0, 100_000: 1}}},
        r"solvers\.fit\.piecewise: step 100000 is beyond the end, step 60",
    ),
    "a rate of 0": (
        {"critic": {"piecewise": {0: 1, 24: 0}}},
        r"solvers\.critic\.piecewise: the learning rate is 0 at every optimiser step of the update, 36 of them",
    ),
    "a technique that never works": (
        {"fit": {"batch": [{"do": "sample_pairing", "inputs": ["points"], "start": 24}]}},
        r"solvers\.fit\.batch: sample_pairing starts at step 24, and the last turn of the update is step 24",
    ),
}


@pytest.mark.parametrize("name", UNLEARNABLE)
def test_an_update_that_cannot_learn_is_refused_with_the_numbers(name, tmp_path):
    changes, complaint = UNLEARNABLE[name]
    solvers = {"fit": {}, "critic": {}, "generator": {}}
    toys.trainer(Run(tmp_path), steps=60, solvers=solvers)
    with pytest.raises(BadInput, match=complaint):
        toys.trainer(Run(tmp_path), steps=60, solvers={**solvers, **changes})


def test_an_update_that_moves_once_at_the_end_of_its_warm_up_is_trained(tmp_path):
    """The bounds of what is refused."""
    changes = {"generator": {"accumulate": 18, "warmup": 60}, "fit": {"warmup": 24}, "critic": {}}
    trainer = toys.trainer(Run(tmp_path), steps=60, solvers=changes, checkpoint_every=60)
    before = [p.clone() for p in trainer.recipe.generator.parameters()]
    trainer.fit()
    assert not all(map(torch.equal, before, trainer.recipe.generator.parameters()))


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    solvers = {"sum": {"optimiser": "sgd", "lr": 3e38}}
    params = toys.training(solvers=solvers, steps=1)
    trainer = Trainer(Broken(1e6), toys.Points(), params, 0, Alone(), Run(tmp_path))
    with pytest.raises(BadInput, match=r"a weight of Broken after step 1 is not finite; lower"):
        trainer.fit()
    assert latest_checkpoint(Run(tmp_path)) is None


class Ambiguous(Broken):
    def phases(self):
        other = Update("sum", lambda batch: self.loss(batch), (self.used,))
        return (*super().phases(), Phase("second", (other,)))


class Backwards(Broken):
    def phases(self):
        return (Phase("only", (Update("sum", self.loss, (self.used,), every=0),)),)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Ambiguous, "two updates are called 'sum'; rename one"),
        (Backwards, "must have a turn every 1 or more"),
    ],
)
def test_updates_that_cannot_be_told_apart_or_never_play_are_refused(recipe, words, tmp_path):
    params = toys.training(solvers={"sum": {}})
    with pytest.raises(BadInput, match=words):
        Trainer(recipe(0.0), toys.Points(), params, 0, Alone(), Run(tmp_path))


class Tied(Recipe):
    """Two names of one parameter."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight

    def phases(self):
        return (Phase("only", (Update("sum", self.loss, (self.first, self.second)),)),)

    def loss(self, batch):
        return Loss(self.second(self.first(batch["points"])).square().sum())


def test_the_average_of_a_shared_parameter_has_both_its_names(tmp_path):
    params = toys.training(solvers={"sum": {}}, ema=0.9, steps=3)
    trainer = Trainer(Tied(), toys.Points(), params, 0, Alone(), Run(tmp_path))
    trainer.fit()
    result = latest_checkpoint(trainer.run).result
    assert torch.equal(result["first.weight"], result["second.weight"])
    assert not torch.equal(result["first.weight"], trainer.recipe.first.weight)


# ---------------------------------------------------------------------------------------------------- solvers


def test_solvers_must_be_those_of_the_recipe(tmp_path):
    with pytest.raises(
        BadInput, match=r"must be those of the updates, \['critic', 'fit', 'generator'\], not \['elbo'\]"
    ):
        toys.trainer(Run(tmp_path), solvers={"elbo": {}})


def test_a_multiplier_that_fits_no_parameter_is_an_error(tmp_path):
    solvers = {"fit": {"lr_multipliers": {"scael": 10}}, "critic": {}, "generator": {}}
    with pytest.raises(BadInput, match="'scael' is in no parameter name"):
        toys.trainer(Run(tmp_path), solvers=solvers)


def test_a_parameter_that_two_multipliers_fit_is_an_error(tmp_path):
    solvers = {
        "fit": {"lr_multipliers": {"generator": 10, r"generator\.0": 2}},
        "critic": {},
        "generator": {},
    }
    with pytest.raises(BadInput, match=r"both in the name of the parameter generator\.0\.weight"):
        toys.trainer(Run(tmp_path), solvers=solvers)


def test_a_multiplier_scales_the_step_of_its_parameters(tmp_path):
    moves = []
    for factor in (1.0, 10.0):
        solver = {"optimiser": "sgd", "lr_multipliers": {"^generator.0": factor}}
        trainer = toys.trainer(
            Run(tmp_path / str(factor)), solvers={"fit": solver, "critic": {}, "generator": {}}
        )
        before = [p.clone() for p in trainer.recipe.generator.parameters()]
        trainer._play_step()
        moves.append(
            [(p - b).abs().max() for p, b in zip(trainer.recipe.generator.parameters(), before, strict=True)]
        )
    assert torch.allclose(moves[1][0], 10 * moves[0][0], rtol=1e-2)
    assert torch.equal(moves[1][-1], moves[0][-1])


def test_schedules_warm_up_and_decay():
    assert [schedule(SolverParams(warmup=4), step, 10) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]
    assert [schedule(SolverParams(decay="linear"), step, 10) for step in (0, 5)] == [1, 0.5]
    assert schedule(SolverParams(decay="cosine"), 5, 10) == pytest.approx(0.5)


# ------------------------------------------------------------------------------------- averages, precision, memory


def test_the_average_is_the_weighted_mean_of_the_weights_after_each_step(tmp_path):
    """Of w_1 to w_t with weights 0.9^(t - i), by hand, batch statistics too; a player of a later phase from there on."""
    trainer = toys.trainer(Run(tmp_path), ema=0.9)
    states = []
    for _ in range(7):
        trainer._play_step()
        trainer.step += 1
        states.append({name: x.detach().double().clone() for name, x in trainer.recipe.state_dict().items()})
    averaged = set(trainer.average.tensors)
    assert averaged == {
        *dict(trainer.recipe.named_parameters()),
        "generator.1.running_mean",
        "generator.1.running_var",
    }
    for name, found in trainer.average.tensors.items():
        values = [state[name] for state in (states[4:] if name.startswith("critic") else states)]
        shares = torch.tensor([0.9**i for i in reversed(range(len(values)))]).double()
        wanted = torch.tensordot(shares / shares.sum(), torch.stack(values), 1)
        assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found.double(), states[-1][name], rtol=1e-5, atol=1e-6)


def test_the_first_average_is_the_weights_and_a_long_one_the_plain_recurrence():
    assert corrected(0.999, 1) == 0
    assert corrected(0.999, 2) == pytest.approx(0.999 / 1.999)
    assert corrected(0.9, 1000) == pytest.approx(0.9)
    shares = [0.0]  # of the initial weights, and of those after each of 150 steps
    for step in range(1, 151):
        decay = corrected(0.999, step)
        shares = [decay * share for share in shares] + [1 - decay]
    assert shares[0] == 0
    assert sum(shares) == pytest.approx(1)
    assert shares[-1] == pytest.approx(0.001 / (1 - 0.999**150))  # 1/144, where it was 1/1000


class Normalised(Recipe):
    """A classifier of the plane with batch normalisation; its inputs are far from 0."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))

    def phases(self):
        return (Phase("only", (Update("nll", self.loss, (self.net,)),)),)

    def loss(self, batch):
        x, labels = labelled(batch["points"])
        return Loss(nn.functional.cross_entropy(self.net(x), labels))

    def accuracy(self, x, labels):
        with torch.no_grad():
            return (self.eval().net(x).argmax(1) == labels).double().mean().item()


def labelled(points):
    """Points in two groups apart by the sign of their first coordinate, and their groups."""
    centred = points - 2
    labels = (centred[:, 0] > 0).long()
    return centred / 2 + torch.where(labels == 1, 20.0, 10.0)[:, None], labels


@pytest.mark.parametrize("decay", [0.9, 0.999, 0.99999])
def test_the_average_of_a_short_training_is_as_accurate_as_its_weights(decay, tmp_path):
    """At 0.999 and 150 steps, 86 % of what was exported were the initial weights: an accuracy of one half."""
    torch.manual_seed(0)
    params = toys.training(solvers={"nll": {}}, ema=decay, steps=150, checkpoint_every=150)
    trainer = Trainer(Normalised(), toys.Points(), params, 0, Alone(), Run(tmp_path))
    trainer.fit()
    x, labels = labelled(toys.Points().train_batch(1, 0, 1000)["points"])
    assert trainer.recipe.accuracy(x, labels) == 1
    trainer.recipe.load_state_dict(latest_checkpoint(trainer.run).result)
    assert trainer.recipe.accuracy(x, labels) == 1


def test_bfloat16_is_that_of_the_losses_only(tmp_path):
    seen = []
    trainer = toys.trainer(Run(tmp_path), precision="bfloat16")
    trainer.recipe.generator[0].register_forward_hook(lambda module, x, y: seen.append(y.dtype))
    trainer._play_step()
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in trainer.recipe.parameters()} == {torch.float32}


class Greedy(Broken):
    def loss(self, batch):
        torch.empty(1 << 50)
        return super().loss(batch)


def test_where_memory_does_not_suffice_what_to_lower_is_named(tmp_path):
    params = toys.training(solvers={"sum": {}})
    trainer = Trainer(Greedy(0.0), toys.Points(), params, 0, Alone(), Run(tmp_path))
    with pytest.raises(
        BadInput,
        match=r"'sum' of Greedy at step 0: out of memory on a slice of 6 examples; lower batch_size \(24\)",
    ):
        trainer.fit()


# ------------------------------------------------------------------------------------------------ seen from outside


def test_a_tail_reads_whole_lines_and_outlives_a_stream_that_was_cut(tmp_path):
    stream = tmp_path / STREAM
    tail = Tail(stream)
    assert tail.new_rows() == []
    stream.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert tail.new_rows() == [{"step": 1}, {"step": 2}]
    assert tail.new_rows() == []
    stream.write_text('{"step": 1}\n')  # a resumed training goes on after its checkpoint
    assert tail.new_rows() == []
    with stream.open("a") as file:
        file.write('{"step": 2}\n')
    assert tail.new_rows() == [{"step": 2}]


def test_a_follower_writes_new_rows_and_only_shows_those_of_an_earlier_try(tmp_path, capsys, monkeypatch):
    stream = tmp_path / STREAM
    stream.write_text('{"step": 1, "a.loss": 5}\n')
    written, stop, shown, show = [], threading.Event(), threading.Event(), watching._show
    monkeypatch.setattr(watching, "_show", lambda *given: (show(*given), shown.set()))
    follower = threading.Thread(target=_follow, args=("toy", stream, 3, written.append, stop))
    follower.start()
    assert shown.wait(300)
    with stream.open("a") as file:
        file.write('{"step": 2, "a.loss": 4}\n{"step": 3, "a.loss": 3}\n')
    stop.set()
    follower.join()
    assert [row["step"] for row in written] == [2, 3]
    assert "toy: 100 % (3 of 3 steps, a.loss 3)" in capsys.readouterr().err


def test_a_log_streams_all_its_lines_and_cuts_them_for_checkpoints(tmp_path):
    run = Run(tmp_path)
    first, *others = [b'{"step": %d}\n' % step for step in (1, 2, 3, 4)]
    log, cuts = Log(run, first), []
    for step in (2, 3, 4):
        log.append({"step": step})
        if step != 2:
            cuts.append(log.cut())
    assert (tmp_path / STREAM).read_bytes() == first + b"".join(others)
    assert [(lines.start, lines.text, lines.stop) for lines in cuts] == [
        (1, b"".join(others[:2]), 3),
        (3, others[2], 4),
    ]
    assert cuts[1].sha256 == hashlib.sha256(first + b"".join(others)).hexdigest()


def test_without_tensorboard_the_option_says_so(tmp_path):
    if importlib.util.find_spec("tensorboard"):
        pytest.skip("tensorboard is installed")
    with (
        pytest.raises(BadInput, match="the package tensorboard is not installed; pip install"),
        watched("a", tmp_path, 1, tmp_path / "board"),
    ):
        pass
