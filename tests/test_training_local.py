"""The promise on processes of this machine: the same bytes on any number of them, and after one of them was killed."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from genpipe.cli import main
from genpipe.errors import BadInput, WorkFailed
from genpipe.experiment import place_of
from genpipe.files import sha256
from genpipe.params.cluster import Cluster
from genpipe.params.training import Training
from genpipe.training.job import Job
from genpipe.training.local import train_here
from genpipe.training.runs import Run
from tests import tiny
from tests.clusters import until
from tests.servers import LOOPBACK, listening

STEPS = 240


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ein großes # 50 % project")
    tiny.write_images(root / "artifacts" / "encoded" / "images")
    network = {"latent_dim": 16, "width": 8}
    ogan = tiny.block("ogan", steps=STEPS, checkpoint_every=20, batch_size=32, network=network)
    datasets = {"tiny": {"kind": "digits", "source": "data/digits"}}
    params = {"datasets": datasets, "recipes": {"ogan": ogan | {"judge": "none"}}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return root


def start(project: Path, workers: int, out: Path) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    words = ["train", "ogan", "--workers", str(workers), "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "genpipe.cli", *words],
        cwd=project,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return errors


def hashes(out: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted(out.iterdir())}


def steps_done(project: Path) -> int:
    streams = list((project / ".genpipe").glob("runs/ogan-*/metrics.jsonl"))
    return len(streams[0].read_text().splitlines()) if streams else 0


def members(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes that train, the first of the group first."""
    return sorted(psutil.Process(process.pid).children(), key=lambda child: child.pid)


@pytest.fixture(scope="module")
def undisturbed(project) -> dict[str, str]:
    finish(start(project, 0, project / "w0"))
    return hashes(project / "w0")


@pytest.fixture(autouse=True)
def _begins_anew(project):
    shutil.rmtree(project / ".genpipe", ignore_errors=True)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_model_has_the_same_bytes_on_local_processes(workers, project, undisturbed):
    errors = finish(start(project, workers, project / f"w{workers}"))
    assert hashes(project / f"w{workers}") == undisturbed
    assert errors.splitlines()[-1].startswith(f"ogan: 100 % ({STEPS} of {STEPS} steps")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_costs_time_and_nothing_else(rank, project, undisturbed):
    process = start(project, 2, project / f"killed-{rank}")
    until(lambda: steps_done(project) > STEPS // 4, process)
    group = members(process)
    assert len(group) == 2
    assert all(listening(member) <= LOOPBACK for member in group)
    group[rank].send_signal(signal.SIGKILL)
    until(lambda: len(members(process)) == 2 and not {*members(process)} & {*group}, process)
    finish(process)
    assert hashes(project / f"killed-{rank}") == undisturbed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_ended_command_leaves_no_process_behind_and_goes_on(number, project, undisturbed):
    out = project / f"resumed-{number}"
    process = start(project, 2, out)
    until(lambda: steps_done(project) > STEPS // 3, process)
    group = members(process)
    assert len(group) == 2
    process.send_signal(number)
    process.wait()
    assert psutil.wait_procs(group, timeout=300)[1] == []
    assert not out.exists()
    finish(start(project, 1, out))
    assert hashes(out) == undisturbed
    shutil.rmtree(out)


def test_bad_input_in_a_process_is_one_line(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("lr: 0.001", "lr: 1.0e+30"))
    try:
        _, errors = (process := start(project, 2, project / "diverged")).communicate(timeout=600)
    finally:
        (project / "params.yaml").write_text(text)
    assert process.returncode == 2
    assert "update 'ogan' of OGAN at step 1 is not finite" in errors.splitlines()[-1]
    assert not (project / "diverged").exists()


@pytest.fixture
def job(tmp_path) -> Job:
    params = Training.model_validate(tiny.training("classifier", batch_size=12, logical_workers=4))
    return Job("classifier", tmp_path, "", params, 1, {})


def test_an_error_of_one_process_ends_the_others_that_wait_for_it(job, tmp_path):
    def work(exchange, device, job, run):
        if exchange.rank == 1:
            raise BadInput("of one alone")
        exchange.gather(torch.zeros(1, 1), [1, 1])

    with pytest.raises(BadInput, match="of one alone"):
        train_here(work, job, Run(tmp_path / "run"), 2)


def test_processes_that_die_again_and_again_are_given_up_with_the_reason(job, tmp_path):
    """A checkpoint in between gives them as many starts again."""

    def work(exchange, device, job, run):
        begun = tmp_path / "begun"
        with begun.open("a") as file:
            file.write(".")
            file.flush()
        if exchange.rank == 0 and begun.stat().st_size == 3:
            run.write("checkpoints/step-3/state.json", b"{}")
        if exchange.rank == 1:
            exchange.gather(torch.zeros(1, 1), [1, 1])
        raise RuntimeError("no such kernel")

    with pytest.raises(
        WorkFailed, match=r"died 4 times before the next checkpoint: RuntimeError: no such kernel; fix"
    ):
        train_here(work, job, Run(tmp_path / "run"), 2)
    assert len((tmp_path / "begun").read_text()) >= 6


def test_training_is_on_ray_where_a_cluster_or_gpus_are_named_or_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    two, plain, gpus = (2, 2), Cluster(), Cluster(gpus_per_worker=1)
    mixed = Cluster(executor="local", executors={"train@nice": "ray", "count": "ray"})
    assert place_of("nice", (0, 0), "ray", plain) == "here"
    assert place_of("nice", two, None, plain) == "local"
    assert place_of("nice", two, "ray", plain) == "ray"
    assert place_of("nice", two, None, gpus) == "ray"
    assert place_of("nice", two, None, mixed) == "ray"
    assert place_of("ogan", two, None, mixed) == "local"
    with pytest.raises(BadInput, match="GPUs are used through Ray"):
        place_of("nice", two, "local", gpus)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert place_of("nice", two, None, plain) == "ray"
    assert place_of("nice", two, "local", plain) == "local"


def test_an_executor_is_of_a_stage_that_there_is(project, tmp_path, capsys):
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["cluster"] = {"executors": {"train@nise": "ray"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert main(["--root", str(tmp_path), "train", "ogan"]) == 2
    assert "cluster.executors: no stage 'train@nise' (of train there is: ogan)" in capsys.readouterr().err


def test_what_killed_processes_leave_half_written_is_no_progress(job, tmp_path):
    """Else a group that dies whenever it writes a checkpoint would start for ever."""

    def work(exchange, device, job, run):
        left = list((tmp_path / "run" / "checkpoints").glob("*"))
        if len(left) > 9:
            raise BadInput("started again and again")
        run.write(f"checkpoints/.step-4.{os.getpid()}.partial", b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkFailed, match="died 4 times before the next checkpoint: killed, or out of memory"):
        train_here(work, job, Run(tmp_path / "run"), 1)
