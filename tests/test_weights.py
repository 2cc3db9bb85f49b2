"""Means over the units of a batch, whatever its slices; and what else an update may name."""

import pytest
import torch

from genpipe.errors import BadInput
from genpipe.params.techniques import Mixup
from genpipe.recipe import Loss, Phase, Recipe, Update, mean_over
from genpipe.training import slices
from genpipe.training.batch_transforms import batch_transform
from genpipe.training.complaints import refuse_ambiguous
from genpipe.training.logical import Alone
from genpipe.training.loss_transforms import r_drop
from genpipe.training.runs import Run
from genpipe.training.slices import refuse_other_rows, slice_of
from genpipe.training.trainer import Trainer
from tests import toys

SGD = {"nll": {"lr": 0.1, "optimiser": "sgd"}, "noise": {"lr": 0.1, "optimiser": "sgd"}}


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_four_slices_make_the_step_of_one(tmp_path):
    trainers = [
        toys.token_trainer(Run(tmp_path / str(v)), logical_workers=v, solvers=SGD, batch_size=12)
        for v in (1, 4)
    ]
    for trainer in trainers:
        trainer.metrics = trainer.turns.play(trainer.phases[0].updates[0], trainer._batch(0), 0)
    one, four = (trainer.metrics for trainer in trainers)
    close(one.gradients, four.gradients)
    assert one.metrics == pytest.approx(four.metrics, rel=1e-6)
    close(trainers[0].recipe.seen, trainers[1].recipe.seen)
    assert one.weight == pytest.approx(4 * four.weight)


def test_two_accumulated_turns_make_the_step_of_one_batch(tmp_path):
    class Halves(toys.Sentences):
        def train_batch(self, seed, step, batch_size):
            whole = super().train_batch(seed, 0, 24)
            half = slice(step % 2 * 12, step % 2 * 12 + 12)
            return {name: rows[half] if batch_size == 12 else rows for name, rows in whole.items()}

    weights = []
    for turns, size in ((1, 24), (2, 12)):
        solvers = {name: {**solver, "accumulate": turns} for name, solver in SGD.items()}
        trainer = toys.token_trainer(
            Run(tmp_path / str(turns)), batch_size=size, steps=turns, solvers=solvers
        )
        trainer.data = Halves()
        trainer.fit()
        weights.append(trainer.recipe.head.weight.detach())
    close(*weights)


def test_a_batch_without_units_names_the_update(tmp_path):
    trainer = toys.token_trainer(Run(tmp_path / "run"))
    batch = {**trainer._batch(0), "lengths": torch.zeros(24, dtype=torch.int64)}
    with pytest.raises(BadInput, match="'nll' of Tokens at step 0: the weights of all slices add up to 0"):
        trainer.turns.play(trainer.phases[0].updates[0], batch, 0)


def test_an_empty_mean_is_zero_with_weight_zero_and_gradient_zero():
    values = torch.tensor([torch.inf, 1.0], requires_grad=True)
    loss = mean_over(values, torch.zeros(2, dtype=torch.bool))
    assert (loss.value.item(), loss.weight.item()) == (0, 0)
    assert torch.autograd.grad(loss.value, values)[0].tolist() == [0, 0]


def test_other_rows_are_refused_by_name_and_numbers_go_whole_to_every_slice():
    batch = {"images": torch.zeros(8, 2), "beta": torch.tensor(0.5)}
    refuse_other_rows(batch, 8)
    assert slice_of(batch, 3, 4, 8)["beta"].item() == 0.5
    assert len(slice_of(batch, 3, 4, 8)["images"]) == 2
    with pytest.raises(BadInput, match="'tokens' has 20 rows and batch_size is 8"):
        refuse_other_rows({**batch, "tokens": torch.zeros(20)}, 8)


def test_progress_runs_from_0_to_before_1(tmp_path):
    trainer = toys.token_trainer(Run(tmp_path / "run"), steps=10)
    found = [trainer._batch(step)["progress"].item() for step in (0, 5, 9)]
    assert found == pytest.approx([0, 0.5, 0.9])


def test_updates_share_a_random_stream_and_one_runs_something_after_its_move(tmp_path):
    drawn, order = {}, []

    class Drawing(toys.Tokens):
        def nll(self, batch):
            drawn["nll"] = torch.rand(3).tolist()
            order.append("nll")
            return super().nll(batch)

        def noise(self, batch):
            drawn["noise"] = torch.rand(3).tolist()
            order.append("noise")
            return super().noise(batch)

        def keep(self):
            order.append("after")
            super().keep()

    original, toys.Tokens = toys.Tokens, Drawing
    try:
        trainer = toys.token_trainer(Run(tmp_path / "run"), logical_workers=1)
    finally:
        toys.Tokens = original
    trainer._play_step()
    assert drawn["nll"] == drawn["noise"]
    assert order == ["nll", "after", "noise"]
    assert torch.equal(trainer.recipe.before, trainer.recipe.head.weight)


def test_r_drop_divides_by_the_weight_and_refuses_other_logits():
    def loss(logits, weight):
        return lambda batch: Loss(logits.sum(), logits=logits, weight=torch.tensor(weight))

    empty = r_drop(loss(torch.zeros(0, 3), 0.0), 4, "solvers.nll")({})
    assert (empty.value.item(), empty.weight.item()) == (0, 0)
    with pytest.raises(BadInput, match="5 for a weight of 3"):
        r_drop(loss(torch.zeros(5, 3), 3.0), 4, "solvers.nll")({})


def test_the_number_of_units_is_not_rounded_to_the_type_of_the_loss(tmp_path):
    """257 has no bfloat16; a gradient weighed by 256 and divided by 257 would be 0.4 % too small."""

    class Narrow(Recipe):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(2, 1, bias=False)

        def phases(self):
            return (Phase("fit", (Update("nll", self.nll, (self.head,)),)),)

        def nll(self, batch):
            value = self.head.weight.bfloat16().sum()
            return Loss(value, weight=torch.tensor(257))

    params = toys.training(solvers={"nll": {"lr": 0.1}}, logical_workers=1)
    trainer = Trainer(Narrow(), toys.Points(), params, 0, Alone(), Run(tmp_path / "run"))
    turn = trainer.turns.play(trainer.phases[0].updates[0], trainer._batch(0), 0)
    assert turn.gradients[0].tolist() == [[1, 1]]


def test_a_slice_without_units_counts_for_nothing_whatever_its_mean_is():
    gradients = [torch.tensor([torch.nan, torch.inf])]
    assert slices.weighed(gradients, 0)[0].tolist() == [0, 0]


def test_adversarial_weights_are_weighed_by_units(tmp_path):
    """Two slices make the mean of their own steps, weighed by their tokens."""
    fgm = {"nll": {"lr": 0.1, "loss": [{"do": "fgm", "parameters": "embedding"}]}, "noise": {"lr": 0.1}}

    def played(directory, rows, num_slices):
        trainer = toys.token_trainer(
            Run(tmp_path / directory), solvers=fgm, batch_size=len(rows["ids"]), logical_workers=num_slices
        )
        return trainer.turns.play(trainer.phases[0].updates[0], rows, 0)

    whole = toys.Sentences().train_batch(0, 0, 12)
    first, second = ({name: rows[half] for name, rows in whole.items()} for half in (slice(6), slice(6, 12)))
    turns = [played("first", first, 1), played("second", second, 1)]
    total = sum(turn.weight for turn in turns)
    means = [
        sum(turn.weight * g for turn, g in zip(turns, pair, strict=True)) / total
        for pair in zip(*(turn.gradients for turn in turns), strict=True)
    ]
    both = played("both", whole, 2)
    close(both.gradients, means)
    assert turns[0].weight != turns[1].weight
    assert both.metrics["nll.adversarial_loss"] > both.metrics["nll.loss"] / 2


def test_mixup_leaves_numbers_of_the_whole_batch_and_refuses_to_mix_them():
    batch = {
        "images": torch.rand(4, 3),
        "labels": torch.tensor([0, 1, 1, 0]),
        "progress": torch.tensor(0.25),
    }
    mixed = batch_transform(Mixup(do="mixup", inputs=("images",)), {"num_classes": 2}, "solvers.nll")(
        batch, 0
    )
    assert mixed["progress"].item() == 0.25
    assert mixed["labels"].shape == (4, 2)
    technique = Mixup(do="mixup", inputs=("progress",))
    with pytest.raises(BadInput, match="'progress' has no rows to mix"):
        batch_transform(technique, {"num_classes": 2}, "solvers.nll")(batch, 0)


def test_an_accumulated_turn_without_units_names_the_update(tmp_path):
    class Silent(toys.Sentences):
        def train_batch(self, seed, step, batch_size):
            batch = super().train_batch(seed, step, batch_size)
            return batch if step == 0 else {**batch, "lengths": torch.zeros(batch_size, dtype=torch.int64)}

    solvers = {name: {**solver, "accumulate": 2} for name, solver in SGD.items()}
    trainer = toys.token_trainer(Run(tmp_path / "run"), solvers=solvers, steps=2)
    trainer.data = Silent()
    with pytest.raises(BadInput, match="'nll' of Tokens at step 1: the weights of all slices add up to 0"):
        trainer.fit()


def test_noise_that_no_other_update_draws_from_is_refused():
    def phase(noise):
        updates = [Update("critic", lambda batch: Loss(torch.zeros(())), ())]
        return (Phase("play", (*updates, Update("generator", updates[0].loss, (), noise=noise))),)

    refuse_ambiguous(phase("critic"))
    refuse_ambiguous(phase(None))
    with pytest.raises(
        BadInput, match="no other update draws from the noise 'critics'; the updates are: critic, generator"
    ):
        refuse_ambiguous(phase("critics"))
