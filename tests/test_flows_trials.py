"""The flows corpus, sweep and backfill on a real small project, with a real Prefect server."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_API_URL
from prefect.states import State
from prefect.testing.utilities import prefect_test_harness

from flows.asking import TRIALS_LEASE, SweepRequest
from flows.backfill import backfill
from flows.commands import backfill_main, corpus_main, sweep_main
from flows.corpus import corpus
from flows.sweep import sweep
from genpipe import lease
from genpipe.errors import BadInput
from tasks.sweeping import check_network, combinations, read_setting
from tasks.workspace import Contents, code_of_the_workspace, open_workspace
from tests.repository import commit, dvc, run
from tests.small_project import PARAMS, TRAIN, started, write_data, write_params

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent.parent
RATES = "train.solvers.nll.lr"
GRID = {RATES: [0.002, 0.001], "train.steps": [10, 20]}


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[str]:
    with prefect_test_harness(server_startup_timeout=300):
        yield PREFECT_API_URL.value()


@pytest.fixture
def project(small_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(small_project)
    return small_project


def ended(flow: Any, **parameters: Any) -> State:
    return flow(**parameters, return_state=True)


def table(root: Path, pattern: str) -> list[dict[str, str]]:
    (path,) = root.glob(pattern)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def trials_of(root: Path) -> list[dict[str, str]]:
    return table(root, ".genpipe/sweeps/*/trials.tsv")


def workspaces(root: Path) -> list[Path]:
    return sorted(root.glob(".genpipe/trials/*"))


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + 4 * seconds  # a busy machine is no failure
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_corpus_makes_counts_and_vocabularies_and_nothing_else(project: Path) -> None:
    state = ended(corpus, names=["one"])
    assert state.is_completed(), state.message
    assert started(project) == ["count@one", "prepare@numbers", "vocabulary@one"]
    assert ended(corpus, names=["one"]).name == "UpToDate"
    assert ended(corpus).is_completed()
    assert started(project)[1:] == ["count@two", "prepare@numbers", "vocabulary@one", "vocabulary@two"]


def test_a_corpus_that_is_not_there_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpus_main(["three"]) == 2
    assert capsys.readouterr().err == ("genpipe: no 'three' in corpora of params.yaml; it has: one, two\n")


def test_a_sweep_sorts_its_trials_and_leaves_the_project_alone(project: Path) -> None:
    (project / "stage.py").write_text((project / "stage.py").read_text().replace("CODE = 1", "CODE = 2"))
    before = run(project, "git", "status", "--porcelain")
    state = ended(sweep, recipe="nice", grid=GRID)
    assert state.is_completed(), state.message
    rows = trials_of(project)
    assert [(row[RATES], row["train.steps"], row["bits_per_dim"]) for row in rows] == [
        ("0.001", "20", "1.5"),
        ("0.001", "10", "2.0"),
        ("0.002", "20", "2.5"),
        ("0.002", "10", "3.0"),
    ]
    (best,) = project.glob(".genpipe/sweeps/nice-*/best.yaml")
    train = yaml.safe_load(best.read_text())["recipes"]["nice"]["train"]
    assert (train["solvers"]["nll"]["lr"], train["steps"], train["batch_size"]) == (0.001, 20, 8)
    assert best.with_name("plot.svg").read_text().count("<circle") == 8  # each trial in each of two panels
    assert not (project / "artifacts").exists()
    assert run(project, "git", "status", "--porcelain") == before
    models = [workspace / "artifacts/models/nice" for workspace in workspaces(project)]
    assert all('"code": 2' in model.read_text() for model in models)  # the uncommitted edit was tried
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["sweep"])))
    assert "0.001" in str(found[-1].data)


def test_a_sweep_of_what_git_does_not_know_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["nice", "--set", "train.steps=1,2"]
    run(project, "git", "rm", "-q", "--cached", "dvc.yaml")
    assert sweep_main(words) == 2
    assert capsys.readouterr().err.startswith("genpipe: dvc.yaml: not tracked by Git")
    shutil.rmtree(project / ".git")
    (project / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    assert sweep_main(words) == 2
    assert "not in a Git repository; go to the root of the project" in capsys.readouterr().err
    assert workspaces(project) == []


@pytest.mark.ray
def test_the_trials_of_a_sweep_share_one_ray_cluster(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told = "os.environ.get('RAY_ADDRESS')"
    stage, graph = project / "stage.py", project / "dvc.yaml"
    stage.write_text(stage.read_text().replace('"code": CODE', f'"code": {told}'))
    of_train = '      params: ["recipes.${key}.train"]\n'
    graph.write_text(
        graph.read_text().replace(of_train, f"{of_train}      meta: {{genpipe: {{ray: true}}}}\n")
    )
    write_params(project, cluster={"workers": 1, "max_parallel": 2, "executor": "ray"})
    assert ended(sweep, recipe="nice", grid={"train.steps": [10, 20, 30]}).is_completed()
    models = [
        json.loads(path.read_text()) for path in project.glob(".genpipe/trials/*/artifacts/models/nice")
    ]
    addresses = {model["code"] for model in models}
    assert len(models) == 3
    assert len(addresses) == 1
    assert addresses.pop().startswith("127.0.0.1:")


def test_only_the_swept_recipe_gets_the_values_and_shared_stages_run_once(project: Path) -> None:
    assert "&id" in (project / "params.yaml").read_text()  # the recipes share a block of YAML
    assert ended(sweep, recipe="nice", grid={"train.steps": [10, 20]}).is_completed()
    ran = [name for workspace in workspaces(project) for name in started(workspace)]
    assert ran.count("train@classifier") == 1
    assert ran.count("train@nice") == 2
    assert ran.count("prepare@numbers") == 1


def test_a_finished_trial_is_not_run_again_and_a_lost_workspace_comes_from_the_cache(project: Path) -> None:
    assert ended(sweep, recipe="nice", grid={RATES: [0.001, 0.002]}).is_completed()
    first = trials_of(project)
    lost, *others = workspaces(project)
    shutil.rmtree(lost)
    for workspace in others:
        shutil.rmtree(workspace / "pids", ignore_errors=True)
    assert ended(sweep, recipe="nice", grid={RATES: [0.001, 0.002]}).is_completed()
    assert trials_of(project) == first
    assert [name for workspace in workspaces(project) for name in started(workspace)] == []


def test_a_failed_trial_stops_no_other(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep_main(["nice", "--set", "train.steps=13,20", "--max-parallel", "1"]) == 1
    captured = capsys.readouterr()
    assert "thirteen steps are too many" in captured.err.splitlines()[-1]
    assert "steps: 20" in captured.out
    rows = trials_of(project)
    assert [(row["train.steps"], row["bits_per_dim"]) for row in rows] == [("20", "1.5"), ("13", "")]
    assert "thirteen steps are too many" in rows[1]["failure"]


def test_a_trial_that_diverged_is_the_last_and_never_the_best(project: Path) -> None:
    code = (project / "stage.py").read_text()
    diverged = code.replace(
        '10 / model["steps"]', '(10 / model["steps"] if model["steps"] > 10 else float("nan"))'
    )
    (project / "stage.py").write_text(diverged)
    assert ended(sweep, recipe="nice", grid={"train.steps": [10, 20, 40]}).is_completed()
    rows = trials_of(project)
    assert [row["train.steps"] for row in rows] == ["40", "20", "10"]
    assert rows[-1]["bits_per_dim"] == "nan"
    (best,) = project.glob(".genpipe/sweeps/nice-*/best.yaml")
    assert "steps: 40" in best.read_text()
    assert best.with_name("plot.svg").read_text().count("<circle") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nice", "--set", "train.setps=1"], "params.yaml: recipes.nice.train.setps"),
        (["nice", "--set", "train.steps=10,many"], "params.yaml: recipes.nice.train.steps"),
        (["nice", "--set", "train.steps.more=1"], "recipes.nice.train.steps.more: steps is a value"),
        (["nice", "--set", "train.network.widht=8"], "recipes.nice.train.network.widht: the model nice has"),
        (["nice", "--set", "train.network.hidden_dim=wide"], "recipes.nice.train.network.hidden_dim"),
        (["nice", "--set", "train.steps"], "--set train.steps: must be a path and values"),
        (["nice", "--set", "train.steps="], "--set train.steps=: needs one value or more"),
        (["nice", "--set", "train.steps=[1"], "--set train.steps=[1: '[1' is not a list of values"),
        (
            ["nice", "--set", "train.steps=1", "--set", "train.steps=2"],
            "--set train.steps: named twice; write all its values after one equals sign",
        ),
        (["mice", "--set", "train.steps=1"], "no 'mice' in recipes of params.yaml"),
        (["nice", "--set", "train.steps=1,2", "--random", "0"], "--random: must be 1 or more"),
        (
            ["nice", "--set", "train.steps=1", "--max-parallel", "0"],
            "--max-parallel: must be 1 or more trials",
        ),
    ],
)
def test_bad_values_are_one_line_before_anything_runs(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert sweep_main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert workspaces(project) == []


def test_a_sweep_without_raw_data_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / "data")
    assert sweep_main(["nice", "--set", "train.steps=1,2"]) == 2
    assert capsys.readouterr().err == "genpipe: data: raw data is missing; fetch it with `genpipe data`\n"
    assert workspaces(project) == []


def test_a_second_sweep_ends_as_busy(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lease.hold(project, TRIALS_LEASE):
        state = ended(sweep, recipe="nice", grid=GRID)
        assert (state.type.value, state.name) == ("CANCELLED", "Busy")
        assert sweep_main(["nice", "--set", "train.steps=1"]) == lease.BUSY
    assert capsys.readouterr().err.count("is being run by process") == 1
    assert workspaces(project) == []


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_an_ended_sweep_leaves_no_stage_running_and_goes_on(
    project: Path, server: str, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals
) -> None:
    assert ended(sweep, recipe="nice", grid={"train.steps": [10]}).is_completed()
    finished = {workspace: started(workspace) for workspace in workspaces(project)}
    slow = {**os.environ, "PYTHONPATH": str(HERE), "PREFECT_API_URL": server, "TRAINING_SECONDS": "86400"}
    command = [sys.executable, "-m", "flows.sweep", "nice", "--set", "train.steps=10,20,30"]
    training = lambda: [pid for workspace in workspaces(project) for pid in running(workspace)]
    with subprocess.Popen(command, cwd=project, env=slow, start_new_session=True) as flow:
        try:
            wait_until(lambda: len(training()) == 2, 120)
            flow.send_signal(ending)
            wait_until(lambda: not training(), 30)
            assert flow.wait(600) != 0
        finally:
            flow.kill()
    assert ended(sweep, recipe="nice", grid={"train.steps": [10, 20, 30]}).is_completed()
    assert [row["train.steps"] for row in trials_of_three(project)] == ["30", "20", "10"]
    assert {workspace: started(workspace) for workspace in finished} == finished


def running(workspace: Path) -> list[str]:
    pids = [path.name.rsplit("-")[1] for path in workspace.glob("pids/train@nice-*")]
    return [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()]


def trials_of_three(root: Path) -> list[dict[str, str]]:
    request = SweepRequest("nice", {"train.steps": [10, 20, 30]}, None, 0)
    return table(root, str(request.directory / "trials.tsv"))


def test_stages_import_the_code_of_their_own_workspace(tmp_path: Path) -> None:
    for name in ("elsewhere", "one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "marker.py").write_text(f"print({name!r})")
    script = tmp_path / "script.py"  # as the installed command genpipe: it does not lie where it is run
    script.write_text("import marker")
    with pytest.MonkeyPatch.context() as environment, code_of_the_workspace():
        said = [run(tmp_path / name, sys.executable, str(script)) for name in ("one", "two")]
        environment.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
        assert run(tmp_path / "one", sys.executable, str(script)) == "elsewhere\n"
    assert said == ["one\n", "two\n"]


def test_a_workspace_shares_the_cache_below_a_path_of_any_characters(
    small_project: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(small_project, tmp_path / "数据, #1 “q” 100%", symlinks=True))
    workspace = open_workspace(root, Contents({}, ("prepare",)))
    assert dvc(workspace, "cache", "dir").strip() == str(root / ".dvc" / "cache")


def test_a_random_search_is_the_same_each_time_and_repeats_nothing() -> None:
    grid = {"a": list(range(10)), "b": list(range(10))}
    drawn = combinations(grid, 20, seed=3)
    assert drawn == combinations(grid, 20, seed=3)
    assert drawn != combinations(grid, 20, seed=4)
    assert len({(trial["a"], trial["b"]) for trial in drawn}) == 20
    assert combinations({"a": [1, 2]}, 5, seed=0) == [{"a": 1}, {"a": 2}]


def test_values_are_read_as_yaml_with_every_spelling_of_numbers() -> None:
    assert read_setting("train.solvers.nll.lr=1e-3,2.0e-3") == (RATES, [0.001, 0.002])
    assert read_setting("a.betas=[0.5,0.9],[9e-1,0.999]") == ("a.betas", [[0.5, 0.9], [0.9, 0.999]])
    assert read_setting("a.decay=linear,constant") == ("a.decay", ["linear", "constant"])
    assert read_setting("a.steps=10,20") == ("a.steps", [10, 20])


def test_a_network_with_arguments_of_the_model_passes() -> None:
    recipe = {**PARAMS["recipes"]["nice"], "train": {**TRAIN, "network": {"hidden_dim": 8}}}
    check_network({"recipes": {"nice": recipe}}, "nice")
    recipe["train"]["network"]["image_shape"] = "square"
    with pytest.raises(BadInput, match="image_shape"):
        check_network({"recipes": {"nice": recipe}}, "nice")


def test_a_backfill_runs_the_code_of_now_on_the_data_of_then_the_oldest_first(project: Path) -> None:
    run(project, "git", "tag", "v1")
    commit(project, "nothing changed")
    time.sleep(1.1)  # commits are as old as their second
    write_data(project, "10 20 30\n")
    commit(project, "more data")
    run(project, "git", "tag", "v2")
    (project / "stage.py").write_text((project / "stage.py").read_text().replace("CODE = 1", "CODE = 3"))
    state = ended(backfill, revisions=["v2", "v1", "v2~1"], targets=["evaluate@nice"])
    assert state.is_completed(), state.message
    rows = table(project, ".genpipe/backfills/*/revisions.tsv")
    assert [(row["revision"], row["nice.sum"]) for row in rows] == [
        ("v1", "6.0"),
        ("v2~1", "6.0"),
        ("v2", "60.0"),
    ]
    assert rows[0]["workspace"] == rows[1]["workspace"]  # the same data
    assert len(workspaces(project)) == 2
    models = [workspace / "artifacts/models/nice" for workspace in workspaces(project)]
    assert all('"code": 3' in model.read_text() for model in models)
    assert not (project / "artifacts").exists()
    assert (project / "data/numbers.txt").read_text() == "10 20 30\n"


def test_a_revision_whose_data_is_gone_is_one_line_and_one_in_the_remote_is_fetched(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(project, "4 5\n")
    commit(project, "lost")
    run(project, "git", "tag", "lost")
    shutil.rmtree(project / ".dvc/cache")
    dvc(project, "remote", "add", "-q", "--default", "store", "../../store")  # relative to .dvc
    write_data(project, "7 8\n")
    commit(project, "pushed")
    run(project, "git", "tag", "pushed")
    dvc(project, "push", "-q")
    shutil.rmtree(project / ".dvc/cache")
    assert backfill_main(["--revisions", "pushed", "lost", "--targets", "evaluate@nice"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("genpipe: revision=lost")
    assert "data.dvc: the raw data is not in the cache of DVC, and its remote did not give it" in last
    rows = {row["revision"]: row for row in table(project, ".genpipe/backfills/*/revisions.tsv")}
    assert rows["pushed"]["nice.sum"] == "15.0"
    assert "not in the cache of DVC" in rows["lost"]["failure"]


def test_a_revision_that_is_not_there_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill_main(["--revisions", "HEAD", "v9"]) == 2
    assert (
        capsys.readouterr().err
        == "genpipe: v9: no such Git revision; `git log` and `git tag` name those there are\n"
    )
    assert backfill_main(["--revisions", "HEAD", "--targets", "evaluate@mice"]) == 2
    assert "no stage 'evaluate@mice'" in capsys.readouterr().err


def test_a_file_of_then_that_git_has_lost_is_one_line_and_no_empty_file(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = run(project, "git", "rev-parse", "HEAD:data.dvc").strip()
    lost = project / ".git/objects" / name[:2] / name[2:]
    lost.chmod(0o644)
    lost.unlink()
    assert backfill_main(["--revisions", "HEAD", "--targets", "evaluate@nice"]) == 2
    assert "data.dvc: Git has it in that commit and cannot read it" in capsys.readouterr().err
    assert workspaces(project) == []


def test_data_sets_of_then_that_do_not_fit_the_recipes_of_now_are_one_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(
        project, datasets={"digits": {"kind": "digits", "source": "data/digits"}}, recipes={}, corpora={}
    )
    run(project, "git", "commit", "-qam", "other data sets")
    run(project, "git", "tag", "other")
    write_params(project)
    assert backfill_main(["--revisions", "other"]) == 2
    assert capsys.readouterr().err.startswith(
        "genpipe: other: params.yaml: corpora.one.dataset: no data set 'numbers'"
    )
