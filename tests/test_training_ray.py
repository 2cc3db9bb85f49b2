"""The promise, end to end: the same bytes on any number of processes, and after one of them was killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from genpipe.files import sha256
from tests import tiny
from tests.clusters import ray_cluster

pytestmark = pytest.mark.ray

STEPS = 240


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    tiny.write_images(root / "artifacts" / "datasets" / "digits")
    network = {"latent_dim": 16, "width": 8}
    ogan = tiny.block("ogan", steps=STEPS, checkpoint_every=20, batch_size=32, network=network)
    blocks = {"ogan": ogan, "classifier": tiny.block("classifier")}
    datasets = {"tiny": {"kind": "digits", "source": "data/digits"}}
    (root / "params.yaml").write_text(yaml.safe_dump({"datasets": datasets, "recipes": blocks}))
    return root


@pytest.fixture(scope="module")
def ray_temp():
    """A short path of our own: Ray's sockets live there, and no other cluster is disturbed."""
    path = Path("/tmp") / f"gp-{os.getpid()}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def start(project: Path, ray_temp: Path, workers: int, out: Path) -> subprocess.Popen:
    environment = os.environ | {"RAY_TMPDIR": str(ray_temp)}
    environment.pop("RAY_ADDRESS", None)
    ray_temp.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "genpipe.cli",
        "train",
        "ogan",
        "--workers",
        str(workers),
        "--out",
        str(out),
    ]
    return subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.PIPE, text=True)


def train(project: Path, ray_temp: Path, workers: int, out: Path) -> None:
    shutil.rmtree(project / ".genpipe", ignore_errors=True)
    process = start(project, ray_temp, workers, out)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def hashes(out: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted(out.iterdir())}


def steps_done(project: Path) -> int:
    logs = list((project / ".genpipe").glob("runs/ogan-*/metrics.jsonl"))
    return len(logs[0].read_text().splitlines()) if logs else 0


@pytest.fixture(scope="module")
def undisturbed(project, ray_temp) -> dict[str, str]:
    train(project, ray_temp, 0, project / "w0")
    return hashes(project / "w0")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_model_has_the_same_bytes_on_ray_workers(workers, project, ray_temp, undisturbed):
    out = project / f"w{workers}"
    train(project, ray_temp, workers, out)
    assert set(undisturbed) == {"weights.safetensors", "recipe.json", "card.md", "curve.tsv"}
    assert hashes(out) == undisturbed


def test_a_killed_training_worker_costs_time_and_nothing_else(project, ray_temp, undisturbed):
    shutil.rmtree(project / ".genpipe", ignore_errors=True)
    process = start(project, ray_temp, 2, project / "killed")
    while steps_done(project) < STEPS // 4:
        assert process.poll() is None, "the training ended before it could be disturbed"
        time.sleep(0.02)
    victims = [
        p
        for p in psutil.Process(process.pid).children(recursive=True)
        if "RayTrainWorker" in " ".join(p.cmdline())
    ]
    assert len(victims) == 2
    at = steps_done(project)
    victims[0].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert at < STEPS
    assert hashes(project / "killed") == undisturbed


def test_a_killed_command_goes_on_where_it_stopped_on_other_workers(project, ray_temp, undisturbed):
    shutil.rmtree(project / ".genpipe", ignore_errors=True)
    process = start(project, ray_temp, 0, project / "resumed")
    while steps_done(project) < STEPS // 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (project / "resumed").exists()
    again = start(project, ray_temp, 1, project / "resumed")
    _, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors
    assert hashes(project / "resumed") == undisturbed


def test_bad_input_on_a_worker_is_one_line(project, ray_temp):
    """A loss that is not finite would be so again: Ray must not try three times."""
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("lr: 0.001", "lr: 1.0e+30"))
    try:
        process = start(project, ray_temp, 1, project / "diverged")
        _, errors = process.communicate(timeout=600)
    finally:
        (project / "params.yaml").write_text(text)
    assert process.returncode == 2
    assert "update 'ogan' of OGAN is not finite at step" in errors.splitlines()[-1]
    assert not (project / "diverged").exists()


def test_a_cluster_without_the_gpus_that_are_wanted_is_one_line(project, ray_temp):
    """Ray Train would wait for them for ever."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump({**params, "cluster": {"gpus_per_worker": 99}}))
    try:
        process = start(project, ray_temp, 1, project / "no-gpu")
        _, errors = process.communicate(timeout=600)
    finally:
        (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert process.returncode == 2
    assert "wanted 99 GPUs for the training processes, the Ray cluster has" in errors.splitlines()[-1]


def test_a_cluster_that_is_named_is_used(project, ray_temp, undisturbed):
    """`ray start` on a port of our own, a token, RAY_ADDRESS: what the README tells."""
    with ray_cluster(ray_temp, (2,)) as cluster:
        shutil.rmtree(project / ".genpipe", ignore_errors=True)
        command = [sys.executable, "-m", "genpipe.cli", "train", "ogan", "--workers", "2", "--out", "cluster"]
        environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        assert hashes(project / "cluster") == undisturbed
