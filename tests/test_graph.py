"""The plan, read from real DVC repositories."""

import contextlib
import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import genpipe.graph
from genpipe import lease
from genpipe.cli import main
from genpipe.errors import BadInput, BadState, Busy
from genpipe.graph import (
    Needs,
    NotVerified,
    Plan,
    by_command,
    in_process,
    inputs_of,
    layout,
    read_plan,
    verify,
)
from genpipe.graph.plan import missing_file
from tests import small_project
from tests.repository import dvc, make_repository, run

DVC_YAML = """\
stages:
  prepare:
    cmd: mkdir -p out && cp data/raw.txt out/clean.txt
    deps: [data/raw.txt]
    outs: [out/clean.txt]
  train:
    foreach: ${recipes}
    do:
      cmd: mkdir -p out && cat out/clean.txt code.txt knobs.yaml > out/${key}.model
      deps: [out/clean.txt, code.txt]
      params: [knobs.yaml: ["recipes.${key}"]]
      outs: ["out/${key}.model"]
      meta: {genpipe: {retries: 2, timeout: 60, gpus: 1}}
  report:
    cmd: cat out/*.model > out/report.txt
    deps: [out/big.model, out/small.model]
    outs: [out/report.txt]
vars: [knobs.yaml]
"""
KNOBS = "recipes:\n  small: {steps: 10, network: {width: 2}}\n  big: {steps: 100, network: {width: 8}}\n"


@pytest.fixture(scope="module")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    make_repository(root)
    (root / "data").mkdir()
    (root / "data/raw.txt").write_text("spring\n")
    (root / "code.txt").write_text("code\n")
    (root / "knobs.yaml").write_text(KNOBS)
    (root / "params.yaml").write_text("datasets: {}\n")
    dvc(root, "add", "-q", "data")
    (root / "dvc.yaml").write_text(DVC_YAML)
    dvc(root, "repro")
    return root


@pytest.fixture
def project(finished_project: Path, tmp_path: Path) -> Path:
    root = tmp_path / "project"
    shutil.copytree(finished_project, root, symlinks=True)
    return root


def names(plan: Plan) -> list[str]:
    return [stage.name for stage in plan.stale]


def reasons(plan: Plan, name: str) -> tuple[str, ...]:
    return next(stage.reasons for stage in plan.stages if stage.name == name)


def test_nothing_is_stale_after_everything_ran(project: Path) -> None:
    plan = read_plan(project)
    assert plan.stale == ()
    assert plan.describe() == "everything is up to date (4 stages)"
    verify(project)


def test_a_stage_comes_after_those_it_waits_for(project: Path) -> None:
    plan = read_plan(project)
    order = [stage.name for stage in plan.stages]
    assert sorted(order) == ["prepare", "report", "train@big", "train@small"]
    assert all(
        order.index(above) < order.index(stage.name) for stage in plan.stages for above in stage.upstream
    )
    assert plan.stages[-1].upstream == ("train@big", "train@small")


def test_a_fresh_project_has_never_run(project: Path) -> None:
    (project / "dvc.lock").unlink()
    plan = read_plan(project)
    assert len(plan.stale) == 4
    assert {stage.reasons for stage in plan.stale} == {("has never run",)}


def test_a_changed_parameter_is_named_by_its_path(project: Path) -> None:
    (project / "knobs.yaml").write_text(KNOBS.replace("width: 2", "width: 3"))
    plan = read_plan(project)
    assert names(plan) == ["train@small", "report"]
    assert reasons(plan, "train@small") == ("params recipes.small.network.width changed",)
    assert reasons(plan, "report") == ("upstream train@small is stale",)


def test_a_changed_dependency_is_named(project: Path) -> None:
    (project / "code.txt").write_text("new code\n")
    plan = read_plan(project)
    assert sorted(names(plan)) == ["report", "train@big", "train@small"]
    assert reasons(plan, "train@big") == ("code.txt changed",)
    assert reasons(plan, "report") == ("upstream train@big and train@small are stale",)


def test_a_changed_command_is_named(project: Path) -> None:
    (project / "dvc.yaml").write_text(DVC_YAML.replace("cat out/*.model >", "sort out/*.model >"))
    assert [stage.reasons for stage in read_plan(project).stale] == [("command changed",)]


def test_a_missing_output_makes_its_stage_and_its_downstream_stale(project: Path) -> None:
    (project / "out/big.model").unlink()
    plan = read_plan(project)
    assert names(plan) == ["train@big", "report"]
    assert reasons(plan, "train@big") == ("out/big.model is missing",)
    assert reasons(plan, "report") == ("upstream train@big is stale",)


def test_an_output_of_another_machine_is_not_in_the_cache(project: Path) -> None:
    """What a fresh clone sees: dvc.lock knows the output, and nobody has it here."""
    (project / "out/big.model").unlink()
    shutil.rmtree(project / ".dvc/cache")
    plan = read_plan(project)
    assert "out/big.model is not in the cache" in reasons(plan, "train@big")


def test_targets_bring_what_they_need_and_nothing_else(project: Path) -> None:
    (project / "dvc.lock").unlink()
    assert names(read_plan(project, ["train@small"])) == ["prepare", "train@small"]
    assert sorted(names(read_plan(project, ["train"]))) == ["prepare", "train@big", "train@small"]


def test_an_unknown_target_is_answered_with_the_stages_there_are(project: Path) -> None:
    with pytest.raises(BadInput, match=r"no stage 'trian'.*train@small"):
        read_plan(project, ["trian"])


def test_missing_raw_data_is_no_stage_s_work(project: Path) -> None:
    shutil.rmtree(project / "data")
    plan = read_plan(project)
    with pytest.raises(BadState, match=r"^data.* is missing; fetch it with `genpipe data`"):
        plan.require_inputs()
    assert "cannot run: data" in plan.describe()


@pytest.mark.parametrize("read", [in_process.read_plan, by_command.read_plan])
def test_raw_data_of_a_fresh_clone_is_missing_and_not_changed(
    project: Path, read: Callable[[Path], Plan]
) -> None:
    shutil.rmtree(project / ".dvc/cache")
    assert read(project).problems[0].startswith("data: DVC's cache lacks what data.dvc pins; `genpipe data")
    shutil.rmtree(project / "data")
    assert read(project).problems == ("data: raw data is missing; fetch it with `genpipe data`",)


def test_changed_raw_data_is_restored_or_accepted_by_a_person(project: Path) -> None:
    (project / "data/raw.txt").write_text("autumn\n")
    with pytest.raises(
        BadState, match=r"differs from what data\.dvc pins; `genpipe data --force` .*`dvc commit"
    ):
        read_plan(project).require_inputs()


@pytest.mark.parametrize("read", [in_process.read_plan, by_command.read_plan])
def test_raw_data_that_no_stage_reads_need_not_be_there(project: Path, read: Callable[[Path], Plan]) -> None:
    (project / "fonts.dvc").write_text(
        "outs:\n- {md5: d41d8cd98f00b204e9800998ecf8427e, size: 0, hash: md5, path: fonts}\n"
    )
    assert read(project).problems == ()


def test_a_missing_source_file_is_named(project: Path) -> None:
    (project / "code.txt").unlink()
    with pytest.raises(BadState, match=r"code\.txt: train@\w+ needs it and it is missing"):
        read_plan(project).require_inputs()


def test_a_name_that_no_stage_makes_is_corrected_in_params() -> None:
    assert "no stage makes it: correct the name in params.yaml" in missing_file(
        "artifacts/models/nicee", "train@x"
    )
    assert "put it there, or correct the name" in missing_file("my/photos", "prepare@photos")


@pytest.mark.parametrize("read", [in_process.read_plan, by_command.read_plan])
def test_a_block_without_a_key_that_a_stage_needs_is_named(
    project: Path, read: Callable[[Path], Plan]
) -> None:
    text = DVC_YAML.replace("foreach: ${recipes}", "foreach: {small: {start: code.txt}, big: {steps: 1}}")
    (project / "dvc.yaml").write_text(
        text.replace("out/clean.txt, code.txt", "out/clean.txt, '${item.start}'")
    )
    with pytest.raises(BadInput, match=r"^params\.yaml: the block big has no start, which the stage train"):
        read(project)


def test_a_plan_without_data_dvc_asks_for_the_data_as_well(project: Path) -> None:
    (project / "data.dvc").unlink()
    shutil.rmtree(project / "data")
    assert read_plan(project).problems == ("data/raw.txt: raw data is missing; fetch it with `genpipe data`",)


def test_how_a_stage_is_run_is_read_from_meta(project: Path) -> None:
    needs = {stage.name: stage.needs for stage in read_plan(project).stages}
    assert needs["train@big"] == Needs(retries=2, timeout=60, gpus=1)
    assert needs["report"] == Needs()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("{ray: 1}", "must be true or false, not 1"),
        ("{priority: 1.5}", "must be a whole number >= 0, not 1.5"),
        ("{cpus: true}", "must be a number >= 0, not True"),
        ("{retry: 2}", "retry: no such key; it knows retries"),
        ("{retries: two}", "must be a whole number >= 0, not 'two'"),
        ("{attempts: 0}", "must be a whole number >= 1, not 0"),
        ("{timeout: .inf}", "must be a number >= 0, not inf"),
        ("3", "must be keys and values, as {retries: 1}, not 3"),
        ("[retries]", "must be keys and values"),
    ],
)
def test_a_wrong_meta_is_named(project: Path, wrong: str, message: str) -> None:
    (project / "dvc.yaml").write_text(DVC_YAML.replace("{retries: 2, timeout: 60, gpus: 1}", wrong))
    with pytest.raises(BadInput, match=message):
        read_plan(project)


@pytest.mark.parametrize(
    "wrong", ["stages: [", "stages: {a: {outs: [x]}}", "stages: {a: {cmd: 'echo ${no.such}'}}"]
)
def test_a_broken_dvc_yaml_is_one_line(project: Path, wrong: str) -> None:
    (project / "dvc.yaml").write_text(wrong)
    with pytest.raises(BadInput) as caught:
        read_plan(project)
    assert "\n" not in str(caught.value)
    assert "dvc.yaml" in str(caught.value)


def test_a_project_without_stages_is_one_line(project: Path) -> None:
    (project / "dvc.yaml").unlink()
    with pytest.raises(BadState, match="no stages"):
        read_plan(project)


def test_a_directory_that_is_no_project_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadState, match="not the root of a DVC project"):
        read_plan(tmp_path)


HOLD = """
import sys, time, zc.lockfile
held = zc.lockfile.LockFile(sys.argv[1])
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def locked(root: Path, seconds: float) -> Iterator[None]:
    """Another process holds DVC's lock of the project for so long."""
    command = [sys.executable, "-c", HOLD, str(root / ".dvc/tmp/lock"), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            yield
        finally:
            holder.kill()


def test_a_busy_project_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "PATIENCE", 1.0)
    with locked(project, 60), pytest.raises(Busy, match="another DVC command is at work here"):
        read_plan(project)


@pytest.mark.parametrize(
    "look", [lambda root: read_plan(root).stale == (), lambda root: "data" in layout(root).outs]
)
def test_a_lock_that_is_given_back_is_waited_for(project: Path, look: Callable[[Path], bool]) -> None:
    with locked(project, 5):  # DVC itself gives up after three
        assert look(project)


def test_a_list_of_files_in_use_that_was_cut_off_is_no_obstacle(project: Path) -> None:
    (project / ".dvc/tmp/rwlock").write_text('{"write": {"/pro')
    with pytest.raises(AssertionError, match="Unable to read"):
        dvc(project, "repro")
    assert read_plan(project).stale == ()
    dvc(project, "repro")


def test_a_list_of_files_in_use_that_somebody_writes_is_left_alone(project: Path) -> None:
    in_use = project / ".dvc/tmp/rwlock"
    in_use.write_text('{"write": {"/pro')
    with in_use.with_name("rwlock.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        lease.remove_broken_rwlock(project)
        assert in_use.exists()
    lease.remove_broken_rwlock(project)
    assert not in_use.exists()


def test_a_parameter_file_is_read_once_for_all_stages(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load_path = in_process.param.load_path
    monkeypatch.setattr(
        in_process.param, "load_path", lambda path, fs: (read.append(path), load_path(path, fs))[1]
    )
    change_parameter(project)
    assert reasons(read_plan(project), "train@small") == ("params recipes.small.network.width changed",)
    assert read == [str(project / "knobs.yaml")]
    read_plan(project)
    assert len(read) == 2, "what was read is not kept for the next plan"


def change_parameter(root: Path) -> None:
    (root / "knobs.yaml").write_text(KNOBS.replace("width: 2", "width: 3"))


CHANGES = {
    "nothing": lambda root: None,
    "a parameter": change_parameter,
    "code": lambda root: (root / "code.txt").write_text("new code\n"),
    "a command": lambda root: (root / "dvc.yaml").write_text(DVC_YAML.replace("cat out/*", "sort out/*")),
    "an output": lambda root: (root / "out/big.model").unlink(),
    "the lock file": lambda root: (root / "dvc.lock").unlink(),
    "raw data": lambda root: (root / "data/raw.txt").write_text("autumn\n"),
    "no raw data": lambda root: shutil.rmtree(root / "data"),
    "no code": lambda root: (root / "code.txt").unlink(),
}


@pytest.mark.slow
@pytest.mark.parametrize("targets", [None, ["train@small"]])
@pytest.mark.parametrize("change", CHANGES)
def test_dvc_s_command_line_gives_the_same_plan_with_coarser_reasons(
    project: Path, change: str, targets: list[str] | None
) -> None:
    CHANGES[change](project)
    exact, coarse = in_process.read_plan(project, targets), by_command.read_plan(project, targets)
    assert [(s.name, s.upstream, s.needs, s.is_stale) for s in coarse.stages] == [
        (s.name, s.upstream, s.needs, s.is_stale) for s in exact.stages
    ]
    assert bool(coarse.problems) == bool(exact.problems)
    assert set(coarse.problems) <= set(exact.problems)


def test_reasons_of_the_command_line_name_the_stage_s_own_change(project: Path) -> None:
    change_parameter(project)
    plan = by_command.read_plan(project)
    assert reasons(plan, "train@small") == ("params recipes.small changed",)
    assert reasons(plan, "report") == ("upstream train@small is stale",)


@pytest.mark.parametrize("gone", ["status", "index", "the module"])
def test_where_dvc_s_classes_have_changed_its_command_line_is_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gone: str
) -> None:
    expected = [(stage.name, stage.is_stale) for stage in read_plan(project).stages]
    assert capsys.readouterr().err == ""
    if gone == "the module":
        monkeypatch.delattr(genpipe.graph, "in_process")
        monkeypatch.setitem(sys.modules, "genpipe.graph.in_process", None)
    else:
        monkeypatch.delattr(in_process.Repo, gone)
    assert [(stage.name, stage.is_stale) for stage in read_plan(project).stages] == expected
    assert capsys.readouterr().err.startswith(f"genpipe: DVC {version('dvc')} is not as genpipe knows it (")
    assert inputs_of(project, "prepare") is None or gone == "status"


def test_dvc_is_as_the_plan_expects(project: Path) -> None:
    """The contract of what is used beyond DVC's public interface: fails when a new DVC has another."""
    with contextlib.chdir(project), in_process.Repo() as repo, in_process.lock_repo(repo):
        graph = repo.index.graph
        assert repo.index.graph is graph, "the index is kept while the lock is held"
        nodes = {node.addressing: node for node in graph}
        assert sorted(nodes) == ["data.dvc", "prepare", "report", "train@big", "train@small"]
        train = nodes["train@small"]
        assert [above.addressing for above in graph.successors(train)] == ["prepare"]
        assert (nodes["data.dvc"].cmd, train.cmd[:8], train.name) == (None, "mkdir -p", "train@small")
        assert train.meta == {"genpipe": {"retries": 2, "timeout": 60, "gpus": 1}}
        assert [str(out) for out in train.outs] == ["out/small.model"]
        assert all(out.hash_info for out in train.outs)
        params = next(dep for dep in train.deps if hasattr(dep, "read_params"))
        assert (
            params.hash_info.value
            == params.read_params()
            == {"recipes.small": {"steps": 10, "network": {"width": 2}}}
        )
        assert all(dep.get_hash().value for dep in train.deps)
        assert repo.status() == {}


@pytest.mark.parametrize(
    ("meta", "needs"),
    [
        ("{priority: 3, ray: true, attempts: 9}", Needs(priority=3, ray=True, attempts=9)),
        ("{cpus: 0.5}", Needs(cpus=0.5)),
    ],
)
def test_all_of_meta_is_read(project: Path, meta: str, needs: Needs) -> None:
    (project / "dvc.yaml").write_text(DVC_YAML.replace("{retries: 2, timeout: 60, gpus: 1}", meta))
    found = {stage.name: stage.needs for stage in read_plan(project).stages}
    assert found["train@big"] == needs


def test_verify_names_what_is_still_stale(project: Path) -> None:
    (project / "out/report.txt").unlink()
    with pytest.raises(NotVerified, match=r"report \(out/report\.txt is missing\)"):
        verify(project)


def test_a_stage_that_dvc_runs_every_time_is_no_failure(project: Path) -> None:
    always = "  today: {cmd: date > out/today, outs: [out/today], always_changed: true}\n"
    later = "  later: {cmd: cp out/today out/later, deps: [out/today], outs: [out/later]}\nvars:"
    (project / "dvc.yaml").write_text(DVC_YAML.replace("vars:", always + later))
    with pytest.raises(NotVerified, match=r"today .*later"):
        verify(project)
    dvc(project, "repro", "today", "later")
    assert names(read_plan(project)) == ["today", "later"]
    verify(project)


def test_reading_a_plan_changes_nothing(project: Path) -> None:
    (project / "code.txt").write_text("new code\n")
    before = (project / "dvc.lock").read_bytes(), sorted(project.glob("out/*"))
    read_plan(project)
    assert before == ((project / "dvc.lock").read_bytes(), sorted(project.glob("out/*")))


def test_the_command_line_shows_the_plan_in_words_and_as_json(project: Path) -> None:
    (project / "knobs.yaml").write_text(KNOBS.replace("width: 2", "width: 3"))
    words = run(project, sys.executable, "-m", "genpipe.cli", "plan")
    assert "2 of 4 stages are out of date" in words
    assert "train@small  params recipes.small.network.width changed" in words
    one = run(project, sys.executable, "-m", "genpipe.cli", "plan", "train@big")
    assert one == "everything is up to date (2 stages)\n"
    plan = json.loads(run(project, sys.executable, "-m", "genpipe.cli", "plan", "--json"))
    assert [stage["name"] for stage in plan["stages"] if stage["stale"]] == ["train@small", "report"]
    assert plan == json.loads(json.dumps(read_plan(project).as_dict()))


def test_the_plan_of_a_set_is_that_of_the_stages_that_judge_its_recipes(tmp_path, capsys):
    root = small_project.make_project(tmp_path)
    small_project.write_params(root, sets={"quick": ["nice"]})
    assert main(["--root", str(root), "plan", "--set", "quick", "--json"]) == 0
    of_set = json.loads(capsys.readouterr().out)
    assert main(["--root", str(root), "plan", "evaluate@nice", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == of_set
    assert "evaluate@nice" in [stage["name"] for stage in of_set["stages"]]
    assert main(["--root", str(root), "plan", "--set", "slow"]) == 2
    assert capsys.readouterr().err == "genpipe: no 'slow' in sets of params.yaml; it has: quick\n"


def test_the_plan_says_what_is_not_valid_in_params_before_anything_runs(tmp_path, capsys):
    root = small_project.make_project(tmp_path)
    small_project.write_params(root, sets={"quick": ["nobody"]})
    assert main(["--root", str(root), "plan"]) == 2
    assert capsys.readouterr() == (
        "",
        "genpipe: params.yaml: sets.quick: no recipe 'nobody' (has: classifier, nice)\n",
    )
