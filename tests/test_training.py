import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.models import RECIPES
from genpipe.params.training import Solver as SolverParams
from genpipe.recipe import Loss, Phase, Recipe, Update
from genpipe.training.agreement import refuse_other_states, together
from genpipe.training.checkpoint import latest_checkpoint, load_weights, read_weights, save_weights
from genpipe.training.logical import Alone, Processes, owned, subtrees, sum_over_slices
from genpipe.training.solver import schedule
from genpipe.training.trainer import Diverged, Trainer, phase_starts
from tests import tiny, toys


def toy_trainer(directory: Path, exchange=None, **changes) -> Trainer:
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    return Trainer(
        toys.TwoPlayers(), toys.Points(), toys.training(**changes), 0, exchange or Alone(), directory
    )


# ------------------------------------------------------------------------------------------------ logical workers


class Room:
    """An exchange between threads."""

    def __init__(self, rank, size, rows, barrier):
        self.rank, self.size, self.rows, self.barrier = rank, size, rows, barrier

    def gather(self, rows, counts):
        self.rows[self.rank] = rows
        self.barrier.wait(timeout=120)
        assert [len(self.rows[rank]) for rank in range(self.size)] == counts
        received = [self.rows[rank].clone() for rank in range(self.size)]
        self.barrier.wait(timeout=120)
        return received


def on_threads(size: int, do) -> list:
    """What `do(exchange)` returns on each of `size` processes."""
    rows, results, barrier = {}, {}, threading.Barrier(size)

    def work(rank):
        results[rank] = do(Room(rank, size, rows, barrier))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(size)]


def summed(terms: torch.Tensor, size: int) -> list[torch.Tensor]:
    """What each of `size` processes makes of the sum."""
    return on_threads(size, lambda room: sum_over_slices(len(terms), lambda v: terms[v].clone(), room))


@pytest.mark.parametrize("num_slices", range(1, 10))
def test_the_sum_over_slices_has_the_same_bits_on_any_number_of_processes(num_slices):
    terms = torch.randn(num_slices, 1000) * torch.logspace(-4, 4, num_slices)[:, None]
    alone = summed(terms, 1)[0]
    assert torch.allclose(alone, terms.double().sum(0).float(), rtol=1e-3, atol=1e-3)
    for size in range(2, num_slices + 1):
        assert all(torch.equal(alone, total) for total in summed(terms, size))


def test_a_sum_in_the_order_of_processes_has_other_bits():
    """The control: without the fixed tree, three processes do differ from one, so the test above can fail."""
    terms = torch.randn(8, 1000)
    by_process = [terms[slice(*owned(rank, 3, 8))].sum(0) for rank in range(3)]
    assert not torch.equal(by_process[0] + by_process[1] + by_process[2], summed(terms, 1)[0])


def test_every_slice_belongs_to_one_process():
    for num_slices in range(1, 12):
        for size in range(1, num_slices + 1):
            nodes = [
                n for rank in range(size) for n in subtrees(owned(rank, size, num_slices), (0, num_slices))
            ]
            assert [v for first, last in nodes for v in range(first, last)] == list(range(num_slices))


def complaints(size: int, do) -> list[str]:
    """The bad input that each process ends with."""

    def work(room):
        with pytest.raises(BadInput) as error:
            do(room)
        return str(error.value)

    return on_threads(size, work)


def test_bad_input_to_one_process_is_raised_by_all():
    def do(room):
        def read():
            if room.rank == 2:
                raise BadInput("disk 2 is empty; mount it")

        together(room, torch.device("cpu"), read)

    assert complaints(3, do) == ["disk 2 is empty; mount it"] * 3


def test_processes_that_stand_at_different_weights_do_not_start():
    def do(room, step=7, weight=0.0):
        refuse_other_states(room, torch.device("cpu"), step, {"a": torch.tensor([1.0, weight])})

    assert on_threads(3, do) == [None] * 3
    (words,) = set(complaints(2, lambda room: do(room, step=4 * room.rank)))
    assert "process 0: step 0, process 1: step 4" in words
    assert len(complaints(2, lambda room: do(room, weight=float(room.rank)))) == 2


def _train_all(rank: int, size: int, root: str) -> None:
    torch.set_num_threads(1)
    store = Path(root) / f"store-{size}"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    exchange = Processes()
    results = {"toy": toy_trainer(Path(root) / f"toy-{size}", exchange)}
    for name in sorted(RECIPES):
        data = tiny.data_for(name, Path(root) / f"data-{size}-{rank}")
        results[name] = tiny.trainer_of(name, data, Path(root) / f"{name}-{size}", exchange=exchange)
    for name, trainer in results.items():
        trainer.fit()
        save_weights(trainer.recipe.state_dict(), Path(root) / f"{name}-{size}-{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_every_recipe_ends_on_the_same_bits_on_1_2_3_and_4_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    for size in (1, 2, 3, 4):
        processes = [
            context.Process(target=_train_all, args=(rank, size, str(tmp_path))) for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=500)
            assert process.exitcode == 0
    for name in ("toy", *RECIPES):
        files = sorted(tmp_path.glob(f"{name}-?-?.safetensors"))
        assert len(files) == 10
        assert len({file.read_bytes() for file in files}) == 1, name


# ---------------------------------------------------------------------------------------------------- the trainer


def test_an_update_moves_its_own_modules_only(tmp_path):
    trainer = toy_trainer(tmp_path)
    for update, mine, other in (("critic", "critic", "generator"), ("generator", "generator", "critic")):
        before = {key: value.clone() for key, value in trainer.recipe.named_parameters()}
        chosen = next(u for phase in trainer.phases for u in phase.updates if u.name == update)
        trainer.solvers[update].step(trainer._play(chosen, trainer._batch(0)).gradients, 0)
        moved = {
            key.split(".")[0]
            for key, value in trainer.recipe.named_parameters()
            if not value.equal(before[key])
        }
        assert moved == {mine}
        assert other not in moved


def test_phases_and_turns_come_in_order(tmp_path):
    toy_trainer(tmp_path).fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    played = [sorted({key.split(".")[0] for key in line} - {"step"}) for line in lines]
    assert played[:4] == [["fit"]] * 4
    assert played[4:] == [["critic"], ["critic", "generator"]] * 3


def test_buffers_follow_the_batch(tmp_path):
    trainer = toy_trainer(tmp_path)
    trainer.fit()
    assert trainer.recipe.mean.abs().min() > 1  # `prepare` ran
    turns = 4 + 6 + 3
    assert trainer.recipe.generator[1].num_batches_tracked == turns


def test_a_resumed_training_ends_on_the_same_bits_after_any_step(tmp_path):
    whole = toy_trainer(tmp_path / "whole")
    whole.fit()
    for stop in (2, 4, 8):
        part = toy_trainer(tmp_path / str(stop))
        part.params = part.params.model_copy(update={"steps": stop})
        part.fit()
        rest = toy_trainer(tmp_path / str(stop))
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
    return Trainer(Broken(value), toys.Points(), toys.training(solvers={"sum": {}}), 0, Alone(), directory)


def test_an_update_that_does_not_reach_a_parameter_names_it(tmp_path):
    with pytest.raises(
        ValueError, match=r"update 'sum' of Broken does not reach extra.weight, extra.bias; drop"
    ):
        broken(1, tmp_path).fit()


def test_a_loss_that_is_not_finite_stops_with_its_name_and_step(tmp_path):
    with pytest.raises(
        Diverged, match=r"update 'sum' of Broken is not finite at step 0: loss (nan|inf|-inf)"
    ):
        broken(float("inf"), tmp_path).fit()


# ---------------------------------------------------------------------------------------------------- solvers


def test_solvers_must_be_those_of_the_recipe(tmp_path):
    with pytest.raises(BadInput, match=r"wanted \['critic', 'fit', 'generator'\], found \['elbo'\]"):
        toy_trainer(tmp_path, solvers={"elbo": {}})


def test_a_multiplier_that_fits_no_parameter_is_an_error(tmp_path):
    solvers = {"fit": {"lr_multipliers": {"scael": 10}}, "critic": {}, "generator": {}}
    with pytest.raises(BadInput, match="'scael' is in no parameter name"):
        toy_trainer(tmp_path, solvers=solvers)


def test_a_parameter_that_two_multipliers_fit_is_an_error(tmp_path):
    solvers = {
        "fit": {"lr_multipliers": {"generator": 10, r"generator\.0": 2}},
        "critic": {},
        "generator": {},
    }
    with pytest.raises(BadInput, match=r"both in the name of the parameter generator\.0\.weight"):
        toy_trainer(tmp_path, solvers=solvers)


def test_a_multiplier_scales_the_step_of_its_parameters(tmp_path):
    moves = []
    for factor in (1.0, 10.0):
        solver = {"optimiser": "sgd", "lr_multipliers": {"^generator.0": factor}}
        trainer = toy_trainer(tmp_path / str(factor), solvers={"fit": solver, "critic": {}, "generator": {}})
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


# ------------------------------------------------------------------------------------------------- checkpoints


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, capsys):
    trainer = toy_trainer(tmp_path)
    trainer.fit()
    newest = tmp_path / "checkpoints" / "step-00000010"
    truncate(newest / "weights.safetensors")
    assert latest_checkpoint(tmp_path).step == 8
    assert "step-00000010/weights.safetensors: the checkpoint is damaged" in capsys.readouterr().err
    again = toy_trainer(tmp_path)
    again.fit()
    assert all(
        value.equal(again.recipe.state_dict()[key]) for key, value in trainer.recipe.state_dict().items()
    )


def test_a_log_that_is_cut_or_changed_costs_the_checkpoints_that_need_it(tmp_path, capsys):
    trainer = toy_trainer(tmp_path)
    trainer.fit()
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines[:9]))
    assert latest_checkpoint(tmp_path).step == 8
    assert "metrics.jsonl: the log is damaged" in capsys.readouterr().err
    toy_trainer(tmp_path).fit()
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    (tmp_path / "metrics.jsonl").write_bytes(whole.replace(b"1", b"2", 1))
    with pytest.raises(BadInput, match="none of its 2 checkpoints can be used"):
        latest_checkpoint(tmp_path)


def test_what_a_log_holds_beyond_its_checkpoint_is_dropped(tmp_path):
    toy_trainer(tmp_path / "a").fit()
    shorter = toy_trainer(tmp_path / "b")
    shorter.params = shorter.params.model_copy(update={"steps": 4})
    shorter.fit()
    with (tmp_path / "b" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 5, "critic.loss": 99}\n{"st')
    toy_trainer(tmp_path / "b").fit()
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


def test_where_no_checkpoint_is_whole_the_remedy_is_named(tmp_path):
    toy_trainer(tmp_path).fit()
    for path in (tmp_path / "checkpoints").glob("step-*/*"):
        truncate(path)
    with pytest.raises(BadInput, match="none of its 2 checkpoints can be used; delete"):
        toy_trainer(tmp_path).fit()


def test_a_checkpoint_has_no_pickle_time_or_path(tmp_path):
    for run in ("a", "b"):
        toy_trainer(tmp_path / run).fit()
    for file in (tmp_path / "a" / "checkpoints").glob("*/*"):
        twin = tmp_path / "b" / "checkpoints" / file.parent.name / file.name
        assert file.suffix in (".safetensors", ".json")
        assert file.read_bytes() == twin.read_bytes()


def test_broken_weights_are_named(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_weights({"a": torch.zeros(100)}, file)
    with pytest.raises(BadInput, match=r"weights.safetensors: a: wanted nothing, found \(100,\)"):
        load_weights(nn.Linear(2, 2), file)
    truncate(file)
    with pytest.raises(BadInput, match="wanted a whole safetensors file"):
        read_weights(file)
