"""The promise, end to end: the same bytes on any number of processes, and after one of them was killed."""

import contextlib
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

from genpipe.cli import main
from genpipe.files import sha256
from tests import tiny
from tests.clusters import can_mount, end_family, ray_cluster, start_node, until
from tests.servers import LOOPBACK, listening

pytestmark = pytest.mark.ray

STEPS = 240

ONE_ALONE = """
import sys, tempfile
from pathlib import Path
import torch
from genpipe.errors import BadInput
from genpipe.files import hash_of
from genpipe.params.training import Training
from genpipe.training.complaints import memory_named
from genpipe.training.job import Job
from genpipe.training.ray import train_on_workers
from genpipe.training.runs import Run
from tests import tiny

def work(exchange, device, job, run):
    with memory_named("update 'nll'", job.params):
        if exchange.rank == 1:
            torch.empty(1 << 50)
        exchange.gather(torch.zeros(1, 1), [1, 1])

place = Path(tempfile.mkdtemp(dir=sys.argv[1]))
params = Training.model_validate(tiny.training("classifier", batch_size=12, logical_workers=4))
data = place / "data"
tiny.write_images(data)
job = Job("classifier", data, hash_of([data], data), params, 1, {})
try:
    train_on_workers(work, job, Run(place / "run"), (2, 2), 0, place / "ray")
except BadInput as error:
    print("one line:", error)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    tiny.write_images(root / "artifacts" / "encoded" / "images")
    network = {"latent_dim": 16, "width": 8}
    ogan = tiny.block("ogan", steps=STEPS, checkpoint_every=20, batch_size=32, network=network)
    begun = tiny.block("ogan", steps=2, network=network)
    blocks = {
        "begun": begun,
        "ogan": ogan | {"start": "models/begun"},
        "classifier": tiny.block("classifier"),
    }
    datasets = {"tiny": {"kind": "digits", "source": "data/digits"}}
    (root / "params.yaml").write_text(yaml.safe_dump({"datasets": datasets, "recipes": blocks}))
    assert main(["--root", str(root), "train", "begun", "--workers", "0"]) == 0
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
        "--executor",
        "ray",
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
    found = hashes(project / "w0")
    assert set(found) == {"weights.safetensors", "recipe.json", "card.md", "curve.tsv", "data.json"}
    return found


@pytest.mark.slow  # the tests of kills below compare what one and two processes end with, too
@pytest.mark.parametrize("workers", [1, 2])
def test_the_model_has_the_same_bytes_on_ray_workers(workers, project, ray_temp, undisturbed):
    out = project / f"w{workers}"
    train(project, ray_temp, workers, out)
    assert hashes(out) == undisturbed


def test_a_killed_training_worker_costs_time_and_nothing_else(project, ray_temp, undisturbed):
    shutil.rmtree(project / ".genpipe", ignore_errors=True)
    process = start(project, ray_temp, 2, project / "killed")
    until(lambda: steps_done(project) > STEPS // 4, process)
    victims = training_workers(process)
    assert len(victims) == 2
    assert listening(psutil.Process(process.pid)) <= LOOPBACK
    at = steps_done(project)
    victims[0].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert at < STEPS
    assert hashes(project / "killed") == undisturbed


def test_a_killed_command_leaves_no_worker_behind_and_goes_on_with_others(project, ray_temp, undisturbed):
    shutil.rmtree(project / ".genpipe", ignore_errors=True)
    process = start(project, ray_temp, 2, project / "resumed")
    until(lambda: steps_done(project) > STEPS // 3, process)
    workers = training_workers(process)
    assert len(workers) == 2
    process.kill()
    process.wait()
    assert psutil.wait_procs(workers, timeout=300)[1] == []
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
    assert "update 'ogan' of OGAN at step 1 is not finite" in errors.splitlines()[-1]
    assert not (project / "diverged").exists()


@pytest.mark.slow
def test_memory_that_one_process_of_two_lacks_is_one_line(tmp_path, ray_temp):
    """The other one waits for it, and must not do so for ever."""
    ray_temp.mkdir(exist_ok=True)
    environment = os.environ | {"RAY_TMPDIR": str(ray_temp), "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("RAY_ADDRESS", None)
    words = [sys.executable, "-c", ONE_ALONE, str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert (
        "one line: update 'nll': out of memory on a slice of 3 examples; lower batch_size (12), or"
        in done.stdout
    )


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
    assert "the training processes need 99 GPUs, the Ray cluster has" in errors.splitlines()[-1]


def command(workers: str, out: str) -> list[str]:
    return [sys.executable, "-m", "genpipe.cli", "train", "ogan", "--workers", workers, "--out", out]


def test_nodes_that_do_not_see_the_project_train_it(project, ray_temp, undisturbed):
    """`ray start`, a token, RAY_ADDRESS; the node with the processors sees an empty directory for the project."""
    if not can_mount():
        pytest.skip("wants the right to mount")
    shutil.rmtree(project / ".genpipe", ignore_errors=True)
    with ray_cluster(ray_temp, (0, 2), hidden=project) as cluster:
        environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
        done = subprocess.run(
            command("2", "cluster"),
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert done.returncode == 0, done.stderr
    assert hashes(project / "cluster") == undisturbed


@pytest.mark.slow
def test_a_node_joins_and_another_dies_and_the_bits_stay(project, ray_temp):
    """From one process to two and back to one, in one elastic training."""
    shutil.rmtree(project / ".genpipe", ignore_errors=True)
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace(f"steps: {STEPS}", f"steps: {5 * STEPS}"))
    try:
        train(project, ray_temp, 0, project / "steady")
        shutil.rmtree(project / ".genpipe")
        with ray_cluster(ray_temp, (1,)) as cluster:
            environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
            process = subprocess.Popen(
                command("1-2", "elastic"), cwd=project, env=environment, stderr=subprocess.PIPE, text=True
            )
            until(lambda: steps_done(project) > STEPS, process)
            words = ["--address", cluster.address, "--num-cpus", "1", "--block"]
            node = start_node(words, cluster.environment, None)
            try:
                until(lambda: two_train(project, cluster.nodes[0], node), process)
                began = steps_done(project)
                until(lambda: steps_done(project) > began + STEPS // 4, process)
            finally:
                end_family(node)
            _, errors = process.communicate(timeout=600)
    finally:
        (project / "params.yaml").write_text(text)
    assert process.returncode == 0, errors
    assert hashes(project / "elastic") == hashes(project / "steady")


def training_workers(*nodes: subprocess.Popen) -> list[psutil.Process]:
    """The processes that train on these Ray nodes."""
    return [
        child
        for node in nodes
        for child in psutil.Process(node.pid).children(recursive=True)
        if is_training(child)
    ]


def two_train(project: Path, *nodes: subprocess.Popen) -> bool:
    """Whether two processes train; one alone is held up near the end, or it might end before the second joins."""
    workers = training_workers(*nodes)
    if len(workers) == 1 and steps_done(project) > 2 * STEPS:
        with contextlib.suppress(psutil.Error):
            workers[0].suspend()
            time.sleep(0.5)  # for two steps a second at most
            workers[0].resume()
    return len(workers) == 2


def is_training(process: psutil.Process) -> bool:
    """Whether it is a live worker of Ray Train."""
    with contextlib.suppress(psutil.Error):
        return "RayTrainWorker" in " ".join(process.cmdline())
    return False
