"""Checkpoints: whole or passed over, the last and the best kept, on disks and in object stores."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput, BadState, Unavailable
from genpipe.training.checkpoint import (
    Checkpoint,
    Keeping,
    Saver,
    Score,
    best_checkpoint,
    latest_checkpoint,
    load_weights,
    read_weights,
    save_weights,
)
from genpipe.training.export import is_finished
from genpipe.training.log import Lines, Log, rows_of
from genpipe.training.runs import Run
from tests import toys


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def fitted(directory: Path, **changes):
    """A toy that was trained to its end."""
    trainer = toys.trainer(Run(directory), **changes)
    trainer.fit()
    return trainer


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, capsys):
    trainer = toys.trainer(Run(tmp_path))
    trainer.fit()
    newest = tmp_path / "checkpoints" / "step-00000010"
    truncate(newest / "weights.safetensors")
    assert latest_checkpoint(Run(tmp_path)).step == 8
    assert "step-00000010/weights.safetensors: the checkpoint is damaged" in capsys.readouterr().err
    again = toys.trainer(Run(tmp_path))
    again.fit()
    assert all(
        value.equal(again.recipe.state_dict()[key]) for key, value in trainer.recipe.state_dict().items()
    )


def test_what_a_log_holds_beyond_its_checkpoint_is_dropped(tmp_path):
    toys.trainer(Run(tmp_path / "a")).fit()
    shorter = toys.trainer(Run(tmp_path / "b"))
    shorter.params = shorter.params.model_copy(update={"steps": 4})
    shorter.fit()
    with (tmp_path / "b" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 5, "critic.loss": 99}\n{"st')
    toys.trainer(Run(tmp_path / "b")).fit()
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


def test_where_no_checkpoint_is_whole_the_remedy_is_named(tmp_path):
    toys.trainer(Run(tmp_path)).fit()
    for path in (tmp_path / "checkpoints").glob("step-*/*"):
        truncate(path)
    with pytest.raises(BadState, match="none of its 2 checkpoints can be used; delete"):
        toys.trainer(Run(tmp_path)).fit()


def test_a_checkpoint_has_no_pickle_time_or_path(tmp_path):
    for run in ("a", "b"):
        toys.trainer(Run(tmp_path / run / "toy")).fit()
    for file in (tmp_path / "a" / "toy" / "checkpoints").glob("*/*"):
        twin = tmp_path / "b" / "toy" / "checkpoints" / file.parent.name / file.name
        assert file.suffix in (".safetensors", ".json", ".jsonl")
        assert file.read_bytes() == twin.read_bytes()


def test_broken_weights_are_named(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_weights({"a": torch.zeros(100)}, file)
    with pytest.raises(BadState, match=r"weights.safetensors: a: the recipe has nothing, the file \(100,\)"):
        load_weights(nn.Linear(2, 2), file)
    truncate(file)
    with pytest.raises(BadState, match="not a whole safetensors file"):
        read_weights(file)


def test_weights_may_be_read_by_whom_the_umask_lets(tmp_path):
    (tmp_path / "card.md").touch()
    save_weights({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["weights.safetensors"] == modes["card.md"]


def stored(run: Run) -> list[str]:
    """The checkpoints that are there."""
    return sorted({name.split("/")[1] for name in run.names("checkpoints")})


def checkpoint_of(step: int, log: Lines, weights=None, best=None) -> Checkpoint:
    """A checkpoint of one weight that says the step."""
    return Checkpoint(step, weights or {"a": torch.full((2,), float(step))}, {}, log, best=best)


def cut(log: Log, step: int) -> Lines:
    """What a checkpoint of a step stores, one line."""
    log.append({"step": step})
    return log.cut()


def saved(run: Run, scores: list[float], keeping: Keeping) -> list[str]:
    """The checkpoints that stay after one was saved for each score."""
    best, log = None, Log(run, b"")
    with Saver(run, keeping) as saver:
        for step, value in enumerate(scores, 1):
            best = keeping.better(best, Score(step, value)) if keeping.best else None
            saver.save(checkpoint_of(step, cut(log, step), best=best))
    return [name.removeprefix("step-0000000") for name in stored(run)]


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    scores = [3.0, 1.0, 2.0, 1.0, 5.0, 4.0]
    assert saved(Run(tmp_path / "last"), scores, Keeping(3)) == ["4", "5", "6"]
    assert saved(Run(tmp_path / "low"), scores, Keeping(2, "lowest")) == ["2", "5", "6"]
    assert saved(Run(tmp_path / "high"), scores, Keeping(1, "highest")) == ["5", "6"]
    assert best_of(Run(tmp_path / "low")).step == 2
    assert best_of(Run(tmp_path / "last")) is None


def best_of(run: Run) -> Checkpoint | None:
    return best_checkpoint(run, latest_checkpoint(run))


def test_a_damaged_best_checkpoint_is_an_error_not_another_best_one(tmp_path):
    run = Run(tmp_path)
    assert saved(run, [3.0, 1.0, 2.0, 5.0, 4.0], Keeping(2, "lowest")) == ["2", "4", "5"]
    change_state(tmp_path, 2, lambda state: {**state, "best": {"step": 2, "value": 9.0}})
    with pytest.raises(BadState, match=r"step-00000002.*damaged: .*it is the best one: delete"):
        best_of(run)


def test_a_saver_takes_a_copy(tmp_path):
    weights = {"a": torch.zeros(1_000_000)}
    with Saver(Run(tmp_path), Keeping()) as saver:
        saver.save(checkpoint_of(1, cut(Log(Run(tmp_path), b""), 1), weights))
        weights["a"].fill_(1)
    assert not latest_checkpoint(Run(tmp_path)).weights["a"].any()


def test_a_saver_tells_what_went_wrong(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "checkpoints").write_text("in the way")
    with (
        pytest.raises(Unavailable, match=r"cannot be read or written: .*checkpoints"),
        Saver(run, Keeping()) as saver,
    ):
        saver.save(checkpoint_of(1, cut(Log(run, b""), 1)))


def test_a_checkpoint_that_was_not_written_to_its_end_is_none(tmp_path):
    run = Run(tmp_path)
    assert saved(run, [0.0, 0.0], Keeping(2)) == ["1", "2"]
    (tmp_path / "checkpoints" / "step-00000002" / "state.json").unlink()
    assert latest_checkpoint(run).step == 1
    assert saved(run, [0.0], Keeping(2)) == ["1"]  # and it is swept away


def test_the_best_checkpoint_is_that_of_the_best_mean_since_the_one_before(tmp_path):
    trainer = toys.trainer(Run(tmp_path), best={"metric": "critic.penalty", "direction": "highest"}, keep=1)
    trainer.fit()
    rows = rows_of(latest_checkpoint(trainer.run).log.text.splitlines())
    means = {
        step: (rows[step - 2]["critic.penalty"] + rows[step - 1]["critic.penalty"]) / 2 for step in (6, 8, 10)
    }  # the first two checkpoints are of the phase before
    best = best_of(trainer.run)
    assert best.step == max(means, key=means.__getitem__)
    assert best.best.value == pytest.approx(max(means.values()))


def test_a_metric_that_is_not_logged_cannot_tell_the_best(tmp_path):
    with pytest.raises(BadInput, match=r"no 'fit.los'; there is: fit.loss"):
        toys.trainer(Run(tmp_path / "a"), best={"metric": "fit.los", "direction": "lowest"}).fit()
    with pytest.raises(
        BadInput, match=r"must be UPDATE.METRIC of critic, fit, generator, which have a turn within"
    ):
        toys.trainer(Run(tmp_path / "b"), best={"metric": "loss"})


@pytest.mark.parametrize(
    ("best", "words"),
    [
        (
            {"metric": "critic.penalty"},
            "more or less of 'critic.penalty' is better is not known; say lowest or highest",
        ),
        ({"metric": "fit.accuracy"}, "the best 'fit.accuracy' is the highest, not the lowest; say highest"),
        (
            {"metric": "fit.loss", "direction": "highest"},
            "the best 'fit.loss' is the lowest, not the highest",
        ),
    ],
)
def test_the_table_of_metrics_says_which_way_the_best_is(best, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        toys.trainer(Run(tmp_path), best=best)


def test_a_training_goes_on_in_an_object_store_from_another_machine(tmp_path):
    """fsspec's memory stands for a bucket; only `metrics.jsonl`, which people watch, is on this disk."""
    toys.trainer(Run(tmp_path / "here")).fit()
    url = f"memory://{tmp_path.name}"
    part = toys.trainer(Run(tmp_path / "a" / "run", url))
    part.params = part.params.model_copy(update={"steps": 4})
    part.fit()
    rest = toys.trainer(Run(tmp_path / "b" / "run", url))
    rest.fit()
    wanted, found = latest_checkpoint(Run(tmp_path / "here")), latest_checkpoint(rest.run)
    assert found.step == 10
    assert all(torch.equal(value, found.weights[name]) for name, value in wanted.weights.items())
    assert [path.name for path in (tmp_path / "b" / "run").iterdir()] == ["metrics.jsonl"]


def test_a_stray_file_costs_no_checkpoint(tmp_path):
    run = Run(tmp_path)
    assert saved(run, [0.0], Keeping(2)) == ["1"]
    (tmp_path / "checkpoints" / ".DS_Store").touch()
    assert saved(run, [0.0, 0.0], Keeping(2)) == [".DS_Store", "1", "2"]


def test_a_path_with_colons_is_a_path(tmp_path):
    """fsspec would read `::` as a chain of file systems, and put the checkpoints of all runs into one place."""
    run = Run(tmp_path / "a::b")
    assert saved(run, [0.0], Keeping(2)) == ["1"]
    assert (tmp_path / "a::b" / "checkpoints").is_dir()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    saved(Run(tmp_path / "a"), [0.0], Keeping(2))
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(BadState, match="none of its 1 checkpoints can be used"):
        latest_checkpoint(Run(tmp_path / "b"))


def test_a_damaged_newest_checkpoint_does_not_outlive_those_written_after_it(tmp_path):
    run = Run(tmp_path)
    saved(run, [0.0, 0.0, 0.0], Keeping(2))
    truncate(tmp_path / "checkpoints" / "step-00000003" / "weights.safetensors")
    log = Log(run, b'{"step": 1}\n')
    with Saver(run, Keeping(1)) as saver:
        saver.save(checkpoint_of(2, cut(log, 2)))
    assert stored(run) == ["step-00000002"]
    assert latest_checkpoint(run).log.text == b'{"step": 1}\n{"step": 2}\n'


def change_state(directory: Path, step: int, change) -> None:
    """Rewrite what state.json of a checkpoint says."""
    file = directory / "checkpoints" / f"step-{step:08d}" / "state.json"
    file.write_text(json.dumps(change(json.loads(file.read_text())), indent=2, sort_keys=True))


@pytest.mark.parametrize("step", [7, 9, 10])
def test_a_changed_digit_of_the_step_neither_trains_on_nor_exports(step, tmp_path, capsys):
    """7 and 9 trained on to other weights, and 10 was exported as finished."""
    whole = fitted(tmp_path / "a" / "toy")
    run = Run(tmp_path / "b" / "toy")
    part = toys.trainer(run)
    part.params = part.params.model_copy(update={"steps": 8})
    part.fit()
    change_state(run.directory, 8, lambda state: {**state, "step": step})
    assert not is_finished(run, 10)
    assert latest_checkpoint(run).step == 6
    assert "step-00000008/state.json: the checkpoint is damaged" in capsys.readouterr().err
    ends = [latest_checkpoint(trainer.run) for trainer in (whole, fitted(run.directory))]
    assert all(torch.equal(value, ends[1].weights[name]) for name, value in ends[0].weights.items())
    assert ends[0].log == ends[1].log


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {"run": "x", "step": 2, "sha256": {}}, "no JSON with state_sha256"),
        (lambda state: [state], "no JSON with state_sha256"),
        (lambda state: {**state, "log_sha256": "0" * 64}, "its content does not have the SHA-256"),
        (lambda state: {**state, "best": None}, "its content does not have the SHA-256"),
    ],
)
def test_a_state_with_any_other_content_is_damaged(change, words, tmp_path, capsys):
    run = Run(tmp_path)
    saved(run, [0.0, 0.0], Keeping(2, "lowest"))
    change_state(tmp_path, 2, change)
    assert latest_checkpoint(run).step == 1
    assert f"state.json: the checkpoint is damaged: {words}" in capsys.readouterr().err


def test_a_checkpoint_in_the_directory_of_another_step_is_damaged(tmp_path, capsys):
    run = Run(tmp_path)
    saved(run, [0.0, 0.0], Keeping(2))
    places = [tmp_path / "checkpoints" / f"step-0000000{step}" for step in (2, 3)]
    places[0].rename(places[1])
    assert latest_checkpoint(run).step == 1
    assert "it is of step 2, which is not that of its directory" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- the log in pieces


class Measured(Run):
    """A run that counts the bytes that each checkpoint writes, of which state.json is the last."""

    def __init__(self, directory: Path, storage: str) -> None:
        super().__init__(directory, storage)
        self.sizes = [0]

    def write(self, name, content):
        super().write(name, content)
        self.sizes[-1] += len(content)
        if name.endswith("state.json"):
            self.sizes.append(0)


def test_what_a_checkpoint_writes_does_not_grow_with_the_steps(tmp_path):
    """The toy, where a log that is written whole is half of its first hundred checkpoints."""
    run = Measured(tmp_path / "run", f"memory://{tmp_path.name}")
    toys.trainer(run, steps=500, checkpoint_every=5).fit()
    *sizes, _ = run.sizes
    second_phase = sizes[40:]
    assert len(second_phase) == 60
    assert max(second_phase) < 1.05 * min(second_phase)


def test_a_log_in_pieces_is_the_log_of_every_step(tmp_path):
    wanted = fitted(tmp_path / "one", checkpoint_every=10)
    for name, stop, every in (("many", 10, 1), ("mixed", 6, 2)):
        part = toys.trainer(Run(tmp_path / name), checkpoint_every=every)
        part.params = part.params.model_copy(update={"steps": stop})
        part.fit()
        rest = fitted(tmp_path / name, checkpoint_every=3)
        assert latest_checkpoint(rest.run).log == latest_checkpoint(wanted.run).log
        assert (tmp_path / name / "metrics.jsonl").read_bytes() == latest_checkpoint(wanted.run).log.text


@pytest.mark.parametrize(
    "damage", [truncate, os.unlink, lambda piece: piece.write_bytes(b'{"step": 3}\n' * 2)]
)
def test_a_damaged_piece_of_the_log_is_taken_from_the_stream_or_named(damage, tmp_path, capsys):
    trainer = fitted(tmp_path)
    before = latest_checkpoint(trainer.run).log
    damage(tmp_path / "log" / "metrics-00000002.jsonl")
    assert latest_checkpoint(trainer.run).log == before
    assert "log is damaged; the lines of metrics.jsonl are whole" in capsys.readouterr().err
    (tmp_path / "metrics.jsonl").write_bytes(before.text.replace(b'"step": 1,', b'"step": 7,'))
    with pytest.raises(BadState, match="none of its 2 checkpoints can be used"):
        latest_checkpoint(trainer.run)
    assert "log: the log is damaged: its first 10 lines are not those of step 10" in capsys.readouterr().err


def test_pieces_beyond_the_checkpoint_that_a_training_went_on_from_are_dropped(tmp_path):
    """With other intervals than before, so that they would overlap."""
    wanted = fitted(tmp_path / "whole")
    kept = toys.trainer(Run(tmp_path / "kept"), keep=9)
    kept.fit()
    for step in (6, 8, 10):
        truncate(tmp_path / "kept" / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")
    rest = fitted(tmp_path / "kept", checkpoint_every=5)
    assert sorted(path.name for path in (tmp_path / "kept" / "log").iterdir()) == [
        f"metrics-0000000{start}.jsonl" for start in (0, 2, 4, 5)
    ]
    assert latest_checkpoint(rest.run).log == latest_checkpoint(wanted.run).log


def test_a_storage_that_is_none_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"cluster.storage: must be a directory or a URL, not nowhere://x"):
        Run(tmp_path, "nowhere://x")
