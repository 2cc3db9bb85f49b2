"""How commands are compared: no assertion here is about speed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from benchmarks import flows, forty, gan, masked_lm, measure, noisy_digits, pipeline, start, texts, training
from benchmarks import numerics as numerics_benchmark
from benchmarks.corpus import scaling_table
from genpipe.assembly import build
from genpipe.data.images import Images
from genpipe.data.loader import Data
from genpipe.dependencies import code_of
from genpipe.errors import BadInput
from genpipe.params.project import read_params
from genpipe.params.training import Training
from genpipe.recipe import Batch, Recipe, Update
from genpipe.training.logical import Alone
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer
from tests import tiny


def python(code: str, *more: str) -> list[str]:
    return [sys.executable, "-c", code, *more]


def writing(rows: str) -> list[str]:
    return python(f"import sys; open(sys.argv[1], 'w').write({rows!r})", f"{measure.OUT}.tsv")


def test_time_asleep_is_wall_and_not_cpu() -> None:
    run = measure.measured(python("import time; time.sleep(1)"), memory=False)
    assert run.wall >= 1
    assert run.cpu < run.wall
    assert (run.work, run.counts, run.peak) == (None, None, 0)


def test_memory_of_a_grandchild_is_seen() -> None:
    child = "import time; kept = bytearray(200_000_000); time.sleep(3)"
    run = measure.measured(
        python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"), memory=True
    )
    assert run.peak > 200_000_000


def test_cpu_of_a_child_that_nobody_waits_for_is_seen() -> None:
    # it ends with the parent, which does not wait for it: getrusage tells of neither
    child = "import time\nwhile time.process_time() < 1: pass\nprint(flush=True); time.sleep(600)"
    parent = (
        "import os, signal, subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); time.sleep(2)  # in which it is looked at\n"
        "os.kill(p.pid, signal.SIGKILL); os._exit(0)"
    )
    assert measure.measured(python(parent), memory=False).cpu > 0.3


def test_a_failure_is_told_with_its_last_line() -> None:
    with pytest.raises(BadInput, match=r"ended with 1: SystemExit|ended with 1: no such thing"):
        measure.measured(python("raise SystemExit('no such thing')"), memory=False)


def test_compare_alternates_and_makes_a_table() -> None:
    commands = {
        "a": python("print('{\"seconds\": 2}')"),
        "b": python("print('noise'); print('{\"seconds\": 1}')"),
    }
    table = measure.compare(commands, 2, base="a", megabytes={"a": 4.0, "b": 4.0})
    assert [len(row.runs) for row in table.rows] == [2, 2]
    assert [row.speeds("work") for row in table.rows] == [[2.0, 2.0], [4.0, 4.0]]
    line = next(line for line in str(table).splitlines() if line.startswith("| b |"))
    assert line.split("|")[6].strip() == "2.00"


def test_equal_counts_in_another_order_pass_and_others_do_not() -> None:
    measure.compare({"a": writing("x\t2\ny\t1\n"), "b": writing("y\t1\nx\t2\n")}, 1)
    unequal = {"a": writing("x\t2\n"), "b": writing("x\t3\n")}
    with pytest.raises(BadInput, match="the counts differ"):
        measure.compare(unequal, 1)
    measure.compare(unequal, 1, families={"a": "one", "b": "another"})


def test_parquet_and_tsv_hash_alike(tmp_path: Path) -> None:
    pq.write_table(pa.table({"token": ["的", "a"], "count": [3, 1]}), tmp_path / "counts.parquet")
    (tmp_path / "counts.tsv").write_text("a\t1\n的\t3\n", encoding="utf-8")
    hashes = {measure.hash_of_counts(tmp_path / f"counts.{kind}") for kind in ("tsv", "parquet")}
    assert len(hashes) == 1


def test_rounds_begin_with_another_command() -> None:
    assert [measure.rotated(["a", "b", "c"], number)[0] for number in range(4)] == ["a", "b", "c", "a"]


def test_efficiency_is_the_median_of_paired_rounds() -> None:
    table = scaling_table({1: [4.0, 4.0, 4.0], 2: [2.0, 2.5, 4.0]}, 8.0)
    assert table.splitlines()[-1] == "| 2 | 2.50 (2.00-4.00) | 3.2 | 0.80 |"


def test_documents_are_lines_that_every_reader_sees_alike() -> None:
    tidied = texts.tidy(["a\u3000b\r\nc\u2028d\x1ce", " ", "a b c d e", "\ufeff第一"])
    assert tidied == ["a b c d e", "第一"]
    assert texts.shuffled(["x", "y", "z"]) == texts.shuffled(["z", "x", "y"])
    assert list(texts.up_to(4, ["a", "b", "c"])) == ["a", "b"]


# ----------------------------------------------------------------------------------------------------- the trainer


class Still:
    """Data whose batches are all the same, and nothing."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}

    def train_batch(self, seed: int, step: int, batch_size: int) -> dict[str, torch.Tensor]:
        return {}


def doubled(name: str, data: Data) -> Recipe:
    return build(name, tiny.BLOCKS[name]["network"], data.facts, training.SEED).double()


def weights_of(recipe: Recipe) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in recipe.parameters()])


def gradients_of(update: Update, batch: Batch) -> list[torch.Tensor]:
    parameters = [parameter for module in update.modules for parameter in module.parameters()]
    torch.manual_seed(3)
    return list(torch.autograd.grad(update.loss(batch).value, parameters))


@pytest.mark.parametrize("num_slices", [1, 4])
def test_the_bare_loop_makes_the_weights_that_the_trainer_makes(tmp_path: Path, num_slices: int) -> None:
    data = tiny.data_for("classifier", tmp_path)
    params = Training.model_validate(tiny.training("classifier", logical_workers=num_slices, steps=20))
    trained, bare, other = (doubled("classifier", data) for _ in range(3))
    Trainer(trained, data, params, training.SEED, Alone(), Run(tmp_path / "run")).fit()
    training.bare_loop(bare, data, params, num_slices)
    assert (weights_of(bare) - weights_of(trained)).abs().max() < 1e-10
    training.bare_loop(other, data, training.changed(params, steps=19), num_slices)
    assert (weights_of(other) - weights_of(trained)).abs().max() > 1e-4  # a step less would have been seen


@pytest.mark.parametrize("name", ["in_turns", "at_once", "by_cut_gradients"])
def test_a_loop_of_a_gan_makes_the_weights_that_the_trainer_makes(tmp_path, monkeypatch, name) -> None:
    """With codes that are no random numbers, which each draws in an order of its own."""
    codes = torch.linspace(-2, 2, 32, dtype=torch.float64).sin().reshape(8, 4)
    monkeypatch.setattr(torch, "randn", lambda *shape, **how: codes)
    data = tiny.data_for("gan", tmp_path)
    schedule = "alternating" if name == "in_turns" else "single"
    updates = ["critic", "generator"] if name == "in_turns" else ["gan"]
    values = tiny.training("gan", steps=5, logical_workers=1, solvers={key: {"lr": 0.001} for key in updates})
    params = Training.model_validate({**values, "network": {**values["network"], "schedule": schedule}})
    models = [build("gan", params.network, data.facts, 1).double() for _ in range(3)]
    start, trained, looped = models
    Trainer(trained, data, params, training.SEED, Alone(), Run(tmp_path / "run")).fit()
    gan.loop(looped, data, params, getattr(gan, name))
    assert (weights_of(looped) - weights_of(trained)).abs().max() < 1e-6
    assert (weights_of(start) - weights_of(trained)).abs().max() > 1e-3


def test_the_table_of_the_gan_has_every_contestant(tmp_path: Path, capsys, monkeypatch) -> None:
    tiny.write_images(tmp_path / "datasets" / "digits")
    rows = gan.measured(training.Setting(tmp_path, rounds=1, steps=2), "gan")
    assert sum(row.base is None for row in rows) == 5
    assert {row.target for row in rows if row.base} == {">= 0.95", ">= 1.25", ""}
    monkeypatch.setattr(sys, "argv", ["gan", "--recipe", "gan_r1", "--artifacts", str(tmp_path)])
    with pytest.raises(SystemExit):
        gan.main()
    assert (
        "--recipe: must be a block of the model gan with a divergence and nothing" in capsys.readouterr().err
    )


def test_the_loop_hides_tokens_as_the_trainer_does() -> None:
    """15 % of them: four fifths marked, a tenth replaced, a tenth left; labels of these alone."""
    torch.manual_seed(0)
    ids = torch.randint(100, (200, 100))
    read, labels = masked_lm.hidden_batch(ids, mark=104, num_ordinary=100)
    is_hidden = labels != masked_lm.IGNORED
    assert is_hidden.double().mean().item() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(labels[is_hidden], ids[is_hidden])
    assert torch.equal(read[~is_hidden], ids[~is_hidden])
    assert (read == 104)[is_hidden].double().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (read == ids)[is_hidden].double().mean().item() == pytest.approx(0.1, abs=0.02)


def test_the_table_of_the_masked_model_has_every_contestant(tmp_path: Path, capsys, monkeypatch) -> None:
    tiny.write_stream(tmp_path / "encoded" / "poems")
    rows = masked_lm.measured(training.Setting(tmp_path, rounds=1, steps=2), "masked_lm")
    assert [row.what for row in rows] == ["transformers, loop", "trainer, 1 slice", "trainer, 4 slices"]
    assert all(row.seconds and row.base for row in rows)
    monkeypatch.setattr(sys, "argv", ["masked_lm", "--recipe", "dynasty", "--artifacts", str(tmp_path)])
    with pytest.raises(SystemExit):
        masked_lm.main()
    assert "--recipe: must be a block of the model masked_lm with dim" in capsys.readouterr().err


def test_a_clock_has_a_time_between_any_two_batches() -> None:
    data = training.Clocked(Still())
    for step in range(3):
        assert data.train_batch(0, step, 1) == {}
    first, middle, last = data.times
    assert data.seconds() == [middle - first, last - middle]
    assert first <= middle <= last


def test_the_first_steps_are_not_counted() -> None:
    assert training.mean_step([9.0] * training.WARM_UP + [1.0, 3.0]) == 2.0


def test_a_checkpoint_is_charged_with_what_its_shadow_takes_beyond_usual_steps() -> None:
    seconds = [9.0] * training.WARM_UP + [1.0] * 95
    assert training.excess(seconds, 50) == 0
    for step in (49, 50, 99):
        seconds[step] += 2
    assert training.excess(seconds, 50) == 3.0  # 4 of the first checkpoint, 2 of the second
    seconds[70] += 8  # in no shadow: others are slow, too
    assert training.excess(seconds, 50) < 3.0


def test_speeds_are_compared_within_a_round_and_shares_too() -> None:
    row = training.Row("net", "ours", [2.0, 4.0, 4.0], base=[1.0, 4.0, 2.0], target=">= 0.9")
    assert str(row) == "| net | ours | 4e+03 (2e+03-4e+03) | 0.5 (0.5-1) x | >= 0.9 |"
    share = training.Row("net", "log", [0.001, 0.002], step=[0.1, 0.1])
    assert str(share) == "| net | log | 1.5 (1-2) | 1.5 (1-2) % of a step |  |"


def test_contestants_alternate_and_the_first_round_is_dropped() -> None:
    order: list[str] = []

    def entry(name: str) -> float:
        order.append(name)
        return float(len(order))

    setting = training.Setting(Path(), rounds=2, steps=1)
    found = training.alternated({"a": lambda: entry("a"), "b": lambda: entry("b")}, setting, "net")
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


@pytest.mark.parametrize("part", ["loop", "log", "processes"])
def test_every_part_measures_what_it_names(tmp_path: Path, part: str) -> None:
    tiny.write_images(tmp_path / "datasets" / "digits")
    tiny.write_pairs(tmp_path / "encoded" / "couplets")
    setting = training.Setting(tmp_path, rounds=1, steps=2)
    rows = training.PARTS[part](setting)
    assert len({(row.title, row.what) for row in rows}) == len(rows) >= 2
    assert all(len(row.seconds) == 1 and row.seconds[0] > 0 for row in rows)
    assert all(row.base or row.step for row in rows)
    if part != "log":  # what others are compared with is among them
        assert sum(row.base == row.seconds for row in rows) == len({row.title for row in rows})


def test_native_numerics_are_measured_without_the_settings_of_this_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = numerics_benchmark.command("nice", "native", 1, tmp_path / "native")
    prefix = words[: words.index("-m")]
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    seen = "import benchmarks, os; print(os.environ.get('MKL_CBWR'), os.environ['OPENBLAS_NUM_THREADS'])"
    assert (
        subprocess.run([*prefix, "-c", seen], capture_output=True, text=True, check=True).stdout == "None 1\n"
    )


def test_ratios_are_taken_within_a_round():
    runs = [
        [measure.Run(wall, 2 * wall, 100, None, None) for wall in walls]
        for walls in ((4.0, 10.0), (2.0, 1.0))
    ]
    rows = [measure.Row(name, None, of[0], of) for name, of in zip("ab", runs, strict=True)]
    assert pipeline.ratios(measure.Table(rows, "a", 0.0), "cpu") == [0.5, 0.1]
    rows = [
        measure.Row(name, None, of[0], of) for name, of in zip((start.RAY, start.LOCAL), runs, strict=True)
    ]
    assert start.ratios(measure.Table(rows, start.RAY, 0.0)) == [0.5, 0.1]
    assert numerics_benchmark.line("nice", {"native": [2.0, 4.0], "portable": [3.0, 4.0]}).endswith(
        "| 1.25 (1-1.5) |"
    )


def test_an_unknown_part_is_told_with_those_there_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["training", "lop"])
    with pytest.raises(SystemExit):
        training.main()
    assert "must be loop, processes, checkpoints or log, not lop" in capsys.readouterr().err


def test_a_fifth_of_the_labels_is_drawn_anew() -> None:
    labels = np.full(600, 3, dtype=np.uint8)
    noised = noisy_digits.noisy(labels, 10, np.random.default_rng(0))
    assert 90 < (noised != labels).sum() <= 120  # of 120, a tenth is as before: 108 expected
    assert len(np.unique(noised)) == 10
    assert (labels == 3).all()
    assert (noised == noisy_digits.noisy(labels, 10, np.random.default_rng(0))).all()


def write_stripes(directory: Path) -> Images:
    """Ten classes of noise, each with a bright stripe of its own: a network learns them in a few epochs."""
    rng = np.random.default_rng(0)
    for split, rows in (("train", 640), ("test", 20)):
        labels = rng.integers(0, 10, rows, dtype=np.uint8)
        images = rng.integers(0, 80, (rows, 10, 8), dtype=np.uint8)
        images[np.arange(rows), labels] += 170
        np.save(directory / f"{split}_images.npy", images[:, None])
        np.save(directory / f"{split}_labels.npy", labels)
    facts = {"image_shape": [1, 10, 8], "num_images": 640, "num_classes": 10}
    return Images(tiny.describe(directory, "images", facts))


def test_every_technique_acts_on_the_same_digits(tmp_path: Path) -> None:
    results = noisy_digits.experiment(write_stripes(tmp_path), 8, range(2))
    for seed in range(2):
        learnt = [found[seed]["cross-entropy of the noisy labels"] for found in results.values()]
        assert len(set(learnt)) == len(noisy_digits.TECHNIQUES)
        assert results["none"][seed]["test accuracy"] > 0.9
    lines = noisy_digits.table(results).splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == list(noisy_digits.TECHNIQUES)


def test_a_table_has_mean_and_deviation() -> None:
    lines = noisy_digits.table({"none": [{"accuracy": 0.5}, {"accuracy": 0.7}]}).splitlines()
    assert lines == ["| technique | accuracy |", "|---|---:|", "| none | 0.600 ± 0.141 |"]


def test_the_project_of_many_recipes_is_valid_and_each_has_code_of_its_own(tmp_path: Path) -> None:
    project = forty.Project(tmp_path / "project")
    recipes = read_params(project.root).recipes
    assert len(recipes) == len({recipe.model for recipe in recipes.values()}) == 5 * len(tiny.BLOCKS)
    code = code_of(project.root)["train"]
    assert {f"models/{recipe.model}" for recipe in recipes.values()} == {
        file for hashes in code.values() for file in hashes if file.startswith("models/")
    }
    counted = "from genpipe.models import RECIPES; from tests import tiny; print(len(set(RECIPES.values())), len(tiny.BLOCKS))"
    assert project.run(sys.executable, "-c", counted).split() == [str(len(recipes))] * 2


def test_judging_begins_without_samples_and_metrics_and_with_all_else(tmp_path: Path) -> None:
    lock = {
        "train@a": {"outs": [{"path": "artifacts/models/a", "md5": "11model"}]},
        "sample@a": {"outs": [{"path": "artifacts/samples/a", "md5": "22sample.dir"}]},
        "evaluate@a": {"outs": [{"path": "artifacts/metrics/a.json", "md5": "33metric"}]},
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": lock}))
    kept = [tmp_path / ".dvc/cache/files/md5/11/model", tmp_path / "artifacts/models/a/weights"]
    lost = [tmp_path / ".dvc/cache/files/md5" / name for name in ("22/sample.dir", "33/metric")]
    lost += [tmp_path / "artifacts" / name for name in ("samples/a/grid.png", "metrics/a.json")]
    for path in (*kept, *lost):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    pipeline.judgements_removed(tmp_path)
    assert [path.exists() for path in (*kept, *lost)] == [True] * 2 + [False] * 4


def test_a_ratio_of_flows_is_that_of_speeds_round_by_round() -> None:
    found = {"genpipe": [1.0, 2.0], "nflows": [2.0, 2.0], "normflows": [1.0, 4.0], "zuko": [3.0, 3.0]}
    rows = flows.lines("nice", "sample", found)
    assert rows[0] == "| nice | sample | nflows | 1500.00 | 2000.00 | 1.50 (1.00-2.00) | 1.0 |"
    assert rows[2].endswith("| 2.25 (1.50-3.00) | 1.35 |")


def test_flows_without_their_peers_are_refused_with_the_remedy() -> None:
    with pytest.raises(BadInput, match=r"nflows: ended with 1: .*benchmarks/peers/requirements-flows.txt"):
        flows.require_agreement("nice", sys.executable, rows=2)
