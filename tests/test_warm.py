"""Stages that are forked from a warm process: the same bytes as commands of their own, and nothing that outlives anybody."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from genpipe.files import hash_of
from genpipe.graph import Needs, Stage
from tasks import guard, warm_process
from tasks.cluster import MEETING
from tasks.reproduce import HOUSEKEEPING, Processes, StageFailed, StageRun, reproduce
from tasks.warm import PROCESS, Warm, WarmGuard, warm_for
from tests import tiny
from tests.repository import make_repository

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="the warm process is forked on Linux only"),
]
GRAPH = {
    "train": {"outs": ["artifacts/models/classifier"], "plots": ["artifacts/curves/classifier.tsv"]},
    "sample": {"deps": ["artifacts/models/classifier"], "outs": ["artifacts/samples/classifier"]},
    "evaluate": {
        "deps": ["artifacts/samples/classifier", "artifacts/models/classifier"],
        "metrics": ["artifacts/metrics/classifier.json"],
    },
}
NAMES = tuple(GRAPH)
LIBRARIES_OF_DVC = (
    "dvc",
    "dvc_data",
    "dvc_objects",
    "dvc_http",
    "dvc_render",
    "scmrepo",
    "dulwich",
    "pyparsing",
)
HERE = Path(__file__).parents[1]
OF_PYTEST = "PYTEST_CURRENT_TEST"  # changes, and a fork has the environment of its flow only


def write_params(root: Path, **changes: object) -> None:
    block = tiny.block("classifier", **changes) | {"judge": "none"}
    datasets = {"tiny": {"kind": "digits", "source": "data/digits"}}
    (root / "params.yaml").write_text(
        yaml.safe_dump({"datasets": datasets, "recipes": {"classifier": block}})
    )


def make_project(root: Path) -> Path:
    root.mkdir()
    make_repository(root)
    tiny.write_images(root / "artifacts" / "encoded" / "images")
    write_params(root)
    stages = {name: {"cmd": f"genpipe {name} classifier", **of} for name, of in GRAPH.items()}
    stages["train"]["params"] = ["recipes"]
    stages["other"] = {
        "cmd": "echo $DVC_STAGE > other.txt && ps -o ppid= $$ > /dev/null",
        "outs": ["other.txt"],
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


@pytest.fixture
def warm(project: Path) -> Iterator[Warm]:
    os.environ.pop(OF_PYTEST, None)
    process = Warm(project)
    yield process
    process.end()
    assert process._process.poll() is not None


def reproduced(
    root: Path,
    processes: Processes,
    show: Callable[[str], None],
    name: str = "train",
    needs: Needs | None = None,
) -> StageRun:
    os.environ.pop(OF_PYTEST, None)
    return reproduce(root, Stage(name, (), ("x",), needs or Needs()), processes, show)


def run(root: Path, name: str, processes: Processes) -> StageRun:
    return reproduced(root, processes, lambda line: None, name)


def told(root: Path, name: str) -> list[str]:
    """What a stage printed, without DVC's own lines."""
    lines = (root / ".genpipe" / "logs" / f"{name}.log").read_text().replace(str(root), "ROOT").splitlines()
    return [line for line in lines if not HOUSEKEEPING.match(line)]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def below(warm: Warm) -> list[psutil.Process]:
    return psutil.Process(warm._process.pid).children(recursive=True)


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_stages_in_forks_make_the_bytes_that_their_commands_make(
    project: Path, warm: Warm, tmp_path: Path
) -> None:
    cold = make_project(tmp_path / "cold")
    for name in (*NAMES, "other"):
        assert run(project, name, Processes(warm)).outcome == "ran"
        assert run(cold, name, Processes()).outcome == "ran"
        assert told(project, name) == told(cold, name)
    assert (project / "dvc.lock").read_bytes() == (cold / "dvc.lock").read_bytes()
    made = [hash_of([root / "artifacts"], root / "artifacts") for root in (project, cold)]
    assert made[0] == made[1]
    assert run(project, "train", Processes(warm)).outcome == "skipped"


def test_a_command_with_torch_is_a_fork_and_another_one_is_not(project: Path, warm: Warm) -> None:
    """Its command line is then that of the warm process."""
    write_params(project, steps=100_000)
    started: list[list[str]] = []

    def note(line: str) -> None:
        if "steps" in line:
            started.extend(process.cmdline() for process in below(warm))
            processes.end_all()

    processes = Processes(warm)
    with pytest.raises(StageFailed, match="it was ended"):
        reproduced(project, processes, note)
    assert len(started) >= 3, "guard, DVC, training"
    assert all("warm_process.py" in " ".join(words) for words in started)
    wait_until(lambda: below(warm) == [])  # a pipe is closed a moment before its process is gone


@pytest.mark.parametrize("victim", ["warm process", "guard"])
def test_nothing_outlives_a_warm_process_or_a_guard_that_is_killed_and_a_command_goes_on(
    victim: str, project: Path, warm: Warm
) -> None:
    write_params(project, steps=300)
    there: list[psutil.Process] = []

    def kill(line: str) -> None:
        if "steps" in line and not there:
            there.extend(below(warm))
            os.kill(warm._process.pid if victim == "warm process" else there[0].pid, signal.SIGKILL)

    processes = Processes(warm)
    assert reproduced(project, processes, kill).outcome == "ran"
    assert len(there) >= 3
    assert processes.warm is None
    wait_until(lambda: not any(map(lives, there)))


def test_nothing_outlives_a_flow_that_is_killed(project: Path) -> None:
    write_params(project, steps=100_000)
    program = (
        "import sys\nfrom pathlib import Path\nfrom genpipe.graph import Needs, Stage\n"
        "from tasks.reproduce import HOUSEKEEPING, Processes, reproduce\nfrom tasks.warm import Warm\n"
        "root = Path(sys.argv[1])\nstage = Stage('train', (), ('x',), Needs())\n"
        "reproduce(root, stage, Processes(Warm(root)), lambda line: print(line, flush=True))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(project)], env=environment, stdout=subprocess.PIPE, text=True
    ) as flow:
        assert flow.stdout is not None
        assert any("steps" in line for line in flow.stdout)
        there = psutil.Process(flow.pid).children(recursive=True)
        assert len(there) >= 4
        flow.kill()
    wait_until(lambda: not any(map(lives, there)))


def test_bad_input_and_a_time_limit_are_reported_as_without_a_warm_process(project: Path, warm: Warm) -> None:
    write_params(project, network={"no_such": 1})
    with pytest.raises(StageFailed, match="no_such: not an argument of Classifier") as failure:
        run(project, "train", Processes(warm))
    assert failure.value.fault == "bad input"
    write_params(project, steps=100_000)
    with pytest.raises(StageFailed, match="timed out after 5 seconds"):
        reproduced(project, Processes(warm), lambda line: None, needs=Needs(timeout=5))
    wait_until(lambda: below(warm) == [])


def test_a_warm_process_is_started_where_enough_stages_need_what_it_has(project: Path) -> None:
    stages = [Stage(f"{group}@classifier", (), ("x",), Needs()) for group in ("prepare", "count", *NAMES)]
    with warm_for(project, stages[:4]) as none:
        assert none is None
    with warm_for(project, stages) as process:
        assert process is not None
        guard = process.start(["--version"], None, os.environ)
        assert isinstance(guard, WarmGuard)
        assert guard.stdout.read().startswith("3.")
        assert guard.wait() == 0
        guard.stdin.close()
        guard.stdout.close()


def test_the_warm_process_takes_its_code_from_where_the_flow_takes_it(tmp_path: Path) -> None:
    """As own_code tells a person to do in a second checkout: put PYTHONPATH=… before the command."""
    package = tmp_path / "genpipe"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the code of PYTHONPATH')")
    command, environment = (
        [sys.executable, "-P", str(PROCESS), "0"],
        {**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stderr == "the code of PYTHONPATH\n"


def test_a_guard_that_is_ended_at_once_ends_what_it_has_just_forked() -> None:
    """Though the fork is slow to make its group, as on a busy machine."""
    program = (
        "import os, sys, time\nfrom tasks import atomic_dvc, guard, warm_process\nfork = os.fork\n"
        "def slow():\n    pid = fork()\n    pid or time.sleep(1)\n    return pid\n"
        "os.fork, atomic_dvc.run = slow, lambda words: time.sleep(600)\n"
        "sys.exit(guard.main(None, 20, [], warm_process._start_dvc))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=HERE, stdin=subprocess.DEVNULL, timeout=300)
    assert done.returncode == guard.ENDED


def test_the_warm_process_has_what_its_forks_would_import(warm: Warm) -> None:
    files = Path(f"/proc/{warm._process.pid}/maps")
    wait_until(lambda: all(part in files.read_text() for part in ("libtorch", "scipy/optimize/")))


def test_a_fork_imports_no_more_of_dvc_and_no_ray(project: Path) -> None:
    """What is imported in a fork is imported for every stage again: two thirds of what DVC took for one."""
    program = (
        "import os, sys\nfrom contextlib import suppress\nfrom importlib import import_module\n"
        "from tasks import atomic_dvc, warm_process\nimport genpipe.experiment\n"
        "for name in warm_process.DVC_USES:\n    import_module(name)\n"
        "assert 'ray' not in sys.modules\nbefore = set(sys.modules)\nos.chdir(sys.argv[1])\n"
        "assert atomic_dvc.run(['repro', '--single-item', 'other']) == 0\n"
        "late = {name for name in set(sys.modules) - before if '.' in name}\nprint(*late, sep='\\n')\n"
    )
    command = [sys.executable, "-c", program, str(project)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300, check=True)
    late = [line for line in done.stdout.splitlines() if line.split(".")[0] in LIBRARIES_OF_DVC]
    assert len(late) < 10, late


def test_a_flow_on_a_terminal_reads_why_a_stage_failed(project: Path) -> None:
    write_params(project, network={"no_such": 1})
    program = (
        "import sys\nfrom pathlib import Path\nfrom genpipe.graph import Needs, Stage\n"
        "from tasks.reproduce import Processes, StageFailed, reproduce\nfrom tasks.warm import Warm\n"
        "root = Path(sys.argv[1])\nwarm = Warm(root)\n"
        "try:\n    reproduce(root, Stage('train', (), ('x',), Needs()), Processes(warm), lambda line: None)\n"
        "except StageFailed as error:\n    (root / 'why').write_text(str(error))\nwarm.end()\n"
    )
    terminal, side = os.openpty()
    command, environment = (
        [sys.executable, "-c", program, str(project)],
        {**os.environ, "PYTHONPATH": str(HERE)},
    )
    subprocess.run(command, env=environment, stdin=side, stdout=side, stderr=side, timeout=300, check=True)
    for end in (terminal, side):
        os.close(end)
    assert "no_such: not an argument of Classifier" in (project / "why").read_text()
    assert "\x1b" not in (project / ".genpipe" / "logs" / "train.log").read_text()


def test_a_fork_has_the_streams_of_a_command_and_does_what_is_registered_for_its_exit(tmp_path: Path) -> None:
    program = (
        "import atexit, io, os, sys\nfrom pathlib import Path\nfrom tasks import warm_process\n"
        "atexit.register(print, 'of the parent', flush=True)\n"
        "def command(words):\n"
        "    atexit.register(print, words[0], isinstance(sys.stdout, io.TextIOWrapper), flush=True)\n"
        "    return 0\n"
        "warm_process.run_command, warm_process.forkable = command, lambda *_: ['of the command']\n"
        "warm_process.run(None, 'a command', env=dict(os.environ), cwd=sys.argv[1])\nos._exit(0)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "of the command True\n"


def test_a_line_for_the_shell_is_left_to_it() -> None:
    for line in ("true # it's a line for the shell", "genpipe train 'classifier'", "genpipe train x > y"):
        assert warm_process.forkable(line, warm_process.ENVIRONMENT) is None


def test_a_stage_on_the_cluster_of_the_flow_is_a_fork_too() -> None:
    line, meeting = "genpipe train classifier", dict.fromkeys(MEETING, "of the cluster")
    assert warm_process.forkable(line, {**warm_process.ENVIRONMENT, **meeting}) == ["train", "classifier"]
    assert warm_process.forkable(line, {**warm_process.ENVIRONMENT, "RAY_OTHER": "1"}) is None


def test_what_optimisers_import_is_imported_before_the_first_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warm_process, "OPTIMISERS_USE", "colorsys")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    warm_process._import_for("sample@a")
    assert "colorsys" not in sys.modules
    warm_process._import_for("train@a")
    gc.unfreeze()
    assert "colorsys" in sys.modules
