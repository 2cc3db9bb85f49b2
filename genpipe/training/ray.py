"""The same training on the processes of Ray Train: one machine, or many that come and go.

Nothing need be on a disk that the nodes share: the driver's node holds the files of the run, and has the data for those
who do not see it.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # a dead worker is noticed sooner
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1" if os.environ.get("RAY_ADDRESS") else "0")

import ray
import torch
from ray.exceptions import RayTaskError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genpipe import own_code
from genpipe.corpus.actors import cluster
from genpipe.errors import BadInput, GenpipeError, packed, reported, unpacked
from genpipe.files import WEIGHTS, hash_of, new_directory, private_directory
from genpipe.lease import open_own
from genpipe.training.agreement import together
from genpipe.training.group import Work, exchange_of, last_words
from genpipe.training.job import Job
from genpipe.training.keeper import MAX_STARTS, Complaint, Keeper
from genpipe.training.meeting import AtAFile, is_alone
from genpipe.training.runs import Run

MAX_DEATHS = 100  # in one run of the command, where checkpoints come between
RESIZE_S = 5.0  # how often an elastic training looks for new nodes; each change costs a restart
PATIENCE_S = "10"  # that an elastic training waits for nodes, of which Ray may not know yet that one is dead


class KeptRun:
    """A run whose files another process keeps: what `Run` does, from afar."""

    def __init__(self, keeper: Any, run: Run) -> None:
        self._keeper = keeper
        self.directory = run.directory
        self.place = run.place

    def begin(self, rows: bytes) -> None:
        """The stream of metrics goes on after `rows`."""
        _answer(self._keeper.begin.remote(rows))

    def start(self) -> None:
        """A group of processes starts; an error where that cannot help any more."""
        if refusal := _answer(self._keeper.start.remote()):
            raise unpacked(*refusal)

    def complain(self, complaint: Complaint) -> None:
        """Leave word of an error that the other processes may not have met."""
        _answer(self._keeper.complain.remote(complaint))

    def say(self, words: str) -> None:
        """Leave last words."""
        _answer(self._keeper.say.remote(words))

    def append(self, rows: bytes) -> None:
        """Add to the stream; nobody waits for it."""
        self._keeper.append.remote(rows)

    def streamed(self) -> bytes:
        """The stream so far."""
        return _answer(self._keeper.streamed.remote())

    def names(self, directory: str) -> list[str]:
        """The stored files below a directory, as DIRECTORY/FILE, in order."""
        return _answer(self._keeper.names.remote(directory))

    def write(self, name: str, content: bytes) -> None:
        """Store a file, whole or not at all."""
        _answer(self._keeper.write.remote(name, content))

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return _answer(self._keeper.read.remote(name))

    def remove(self, name: str) -> None:
        """Drop a file, or a directory and all below it."""
        _answer(self._keeper.remove.remote(name))

    def pack(self, directory: Path) -> dict[str, bytes]:
        """The files below a directory of the driver's node."""
        return _answer(self._keeper.pack.remote(directory))


def train_on_workers(
    work: Work, job: Job, run: Run, workers: tuple[int, int], gpus_per_worker: float, storage: Path
) -> None:
    """Call `work(exchange, device, job, run)` on each of at least `workers[0]` and at most `workers[1]` processes.

    Dead ones are replaced, and where the numbers differ, a node that joins is used. `RAY_ADDRESS` names a cluster;
    without it a local one is started. `work` goes on from its own checkpoints.
    """
    fewest, most = workers
    name = f"run-{os.getpid()}"
    if fewest != most:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", PATIENCE_S)
    scaling = ScalingConfig(
        num_workers=fewest if fewest == most else workers,
        use_gpu=gpus_per_worker > 0,
        resources_per_worker={"CPU": 1} | ({"GPU": gpus_per_worker} if gpus_per_worker else {}),
        elastic_resize_monitor_interval_s=RESIZE_S,
    )
    with cluster(most):
        require(ray.cluster_resources(), {"CPU": fewest, "GPU": fewest * gpus_per_worker})
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "work": work,
                "job": job,
                "run": KeptRun(_keeper(run), run),
                "code": own_code.digest(),
            },
            torch_config=AtAFile(directory=str(storage / name))
            if is_alone() and not gpus_per_worker
            else None,
            scaling_config=scaling,
            run_config=RunConfig(
                name=name,
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=MAX_DEATHS),
            ),
        )
        try:
            complaint = trainer.fit().return_value
        finally:
            shutil.rmtree(storage / name, ignore_errors=True)
    if complaint:
        raise unpacked(*complaint)


def _answer(call: Any) -> Any:
    """The answer of the keeper; its errors of genpipe as they were raised there, without Ray's traceback in the line."""
    try:
        return ray.get(call)
    except RayTaskError as error:
        if known := reported(error.cause):
            raise known from None
        raise


def _keeper(run: Run) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, max_restarts=MAX_STARTS, max_task_retries=MAX_STARTS)(Keeper)
    return actor.options(scheduling_strategy=here).remote(run.directory, run.storage)


def require(there: Mapping[str, float], wanted: Mapping[str, float]) -> None:
    """Raise BadInput when a cluster can never give what is asked of it; Ray Train would wait for ever."""
    for kind, number in wanted.items():
        if there.get(kind, 0) < number:
            raise BadInput(
                f"the training processes need {number:g} {kind}s, the Ray cluster has {there.get(kind, 0):g}; "
                "lower --workers or cluster.gpus_per_worker, or name a larger cluster with RAY_ADDRESS"
            )


def _worker(config: dict[str, Any]) -> Complaint | None:
    """Run the work; an error that all processes have met is returned, not raised: Ray need not start them again."""
    torch.set_num_threads(1)  # two busy threads made tiny steps 40 times slower
    work, job, run = config["work"], config["job"], config["run"]
    exchange, device = exchange_of(job), get_device()
    try:
        together(exchange, device, lambda: own_code.require_same(config["code"]))
        together(exchange, device, lambda: run.start() if exchange.rank == 0 else None)
        job = together(exchange, device, lambda: _with_files_here(job, run))
        work(exchange, device, job, run)
    except GenpipeError as error:
        if error.is_agreed:
            return packed(error)
        # maybe of this process alone: the others wait for it, so that Ray must end them
        run.complain(packed(error))
        raise
    except Exception as error:
        if words := last_words(error):
            run.say(words)
        raise
    return None


def _with_files_here(job: Job, run: KeptRun) -> Job:
    """The job with its data, and the models that it starts from or is validated by, where this node has them."""
    data = _here(job.data, "", job.data_sha256, run)
    start, validator = (
        model and (_here(model[0], WEIGHTS, model[1], run), model[1]) for model in (job.start, job.validator)
    )
    return replace(job, data=data, start=start, validator=validator)


def _here(directory: Path, part: str, sha256: str, run: KeptRun) -> Path:
    """A directory of the driver on this node: itself where this node sees the same, else a copy for this user alone.

    The hash is that of `part`, or of the whole directory where that is empty. One process of this node makes the copy,
    the others wait for it: none replaces what another one reads.
    """

    def is_same(place: Path) -> bool:
        return (place / part).exists() and hash_of([place / part], place) == sha256

    if is_same(directory):
        return directory
    copy = private_directory() / f"data-{sha256[:16]}"
    with open_own(copy.with_suffix(".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_same(copy):
            with new_directory(copy) as partial:
                for name, content in run.pack(directory).items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    (partial / name).write_bytes(content)
    return copy
