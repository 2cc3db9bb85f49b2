"""Checkpoints: whole or passed over, the last and the best kept, on disks and in object stores."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.training.checkpoint import (
    Checkpoint,
    Keeping,
    Saver,
    best_checkpoint,
    latest_checkpoint,
    load_weights,
    read_weights,
    save_weights,
)
from genpipe.training.log import rows_of
from genpipe.training.runs import Run
from tests import toys


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


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
    with pytest.raises(BadInput, match="none of its 2 checkpoints can be used; delete"):
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
    with pytest.raises(BadInput, match=r"weights.safetensors: a: wanted nothing, found \(100,\)"):
        load_weights(nn.Linear(2, 2), file)
    truncate(file)
    with pytest.raises(BadInput, match="wanted a whole safetensors file"):
        read_weights(file)


def stored(run: Run) -> list[str]:
    """The checkpoints that are there."""
    return sorted({name.split("/")[1] for name in run.names() if name.startswith("checkpoints/")})


def saved(run: Run, scores: list[float], keeping: Keeping) -> list[str]:
    """The checkpoints that stay after one was saved for each score."""
    with Saver(run, keeping) as saver:
        for step, score in enumerate(scores, 1):
            weights = {"a": torch.full((2,), float(step))}
            saver.save(Checkpoint(step, weights, {}, b"", score=score))
    return [name.removeprefix("step-0000000") for name in stored(run)]


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    scores = [3.0, 1.0, 2.0, 1.0, 5.0, 4.0]
    assert saved(Run(tmp_path / "last"), scores, Keeping(3)) == ["4", "5", "6"]
    assert saved(Run(tmp_path / "low"), scores, Keeping(2, "lowest")) == ["2", "5", "6"]
    assert saved(Run(tmp_path / "high"), scores, Keeping(1, "highest")) == ["5", "6"]
    assert best_checkpoint(Run(tmp_path / "low"), Keeping(2, "lowest")).step == 2
    assert best_checkpoint(Run(tmp_path / "last"), Keeping(3)) is None


def test_a_saver_takes_a_copy(tmp_path):
    weights = {"a": torch.zeros(1_000_000)}
    with Saver(Run(tmp_path), Keeping()) as saver:
        saver.save(Checkpoint(1, weights, {}, b""))
        weights["a"].fill_(1)
    assert not latest_checkpoint(Run(tmp_path)).weights["a"].any()


def test_a_saver_tells_what_went_wrong(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "checkpoints").write_text("in the way")
    with (
        pytest.raises(BadInput, match=r"cannot be read or written: .*checkpoints"),
        Saver(run, Keeping()) as saver,
    ):
        saver.save(Checkpoint(1, {}, {}, b""))


def test_a_checkpoint_that_was_not_written_to_its_end_is_none(tmp_path):
    run = Run(tmp_path)
    assert saved(run, [0.0, 0.0], Keeping(2)) == ["1", "2"]
    (tmp_path / "checkpoints" / "step-00000002" / "state.json").unlink()
    assert latest_checkpoint(run).step == 1
    assert saved(run, [0.0], Keeping(2)) == ["1"]  # and it is swept away


def test_the_best_checkpoint_is_that_of_the_best_mean_since_the_one_before(tmp_path):
    trainer = toys.trainer(Run(tmp_path), best={"metric": "critic.loss", "direction": "highest"}, keep=1)
    trainer.fit()
    rows = rows_of(latest_checkpoint(trainer.run).log.splitlines())
    means = {
        step: (rows[step - 2]["critic.loss"] + rows[step - 1]["critic.loss"]) / 2 for step in (6, 8, 10)
    }  # the first two checkpoints are of the phase before
    best = best_checkpoint(trainer.run, Keeping(1, "highest"))
    assert best.step == max(means, key=means.__getitem__)
    assert best.score == pytest.approx(max(means.values()))


def test_a_metric_that_is_not_logged_cannot_tell_the_best(tmp_path):
    with pytest.raises(BadInput, match=r"no 'fit.los'; there is: fit.loss"):
        toys.trainer(Run(tmp_path / "a"), best={"metric": "fit.los"}).fit()
    with pytest.raises(
        BadInput, match=r"wanted UPDATE.METRIC of critic, fit, generator, which have a turn within"
    ):
        toys.trainer(Run(tmp_path / "b"), best={"metric": "loss"})


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
    with pytest.raises(BadInput, match="none of its 1 checkpoints can be used"):
        latest_checkpoint(Run(tmp_path / "b"))


def test_a_damaged_newest_checkpoint_does_not_outlive_those_written_after_it(tmp_path):
    run = Run(tmp_path)
    saved(run, [0.0, 0.0, 0.0], Keeping(2))
    truncate(tmp_path / "checkpoints" / "step-00000003" / "weights.safetensors")
    with Saver(run, Keeping(1)) as saver:
        saver.save(Checkpoint(2, {}, {}, b""))
    assert stored(run) == ["step-00000002"]


def test_a_state_without_its_hashes_is_damaged(tmp_path, capsys):
    run = Run(tmp_path)
    saved(run, [0.0, 0.0], Keeping(2))
    state = tmp_path / "checkpoints" / "step-00000002" / "state.json"
    state.write_text('{"run": "x", "step": 2, "sha256": {}, "score": null}')
    assert latest_checkpoint(run).step == 1
    assert "state.json: the checkpoint is damaged: wanted run, step" in capsys.readouterr().err


def test_a_storage_that_is_none_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"cluster.storage: wanted a directory or a URL, nowhere://x"):
        Run(tmp_path, "nowhere://x")
