"""The same training on the processes of Ray Train: one machine, or many."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # a dead worker is noticed sooner

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from genpipe.corpus.actors import cluster
from genpipe.errors import BadInput
from genpipe.training.logical import Exchange, Processes

MAX_FAILURES = 3  # of workers, in one run of the command

Job = TypeVar("Job")


def train_on_workers(
    work: Callable[[Exchange, torch.device, Job], None],
    job: Job,
    workers: int,
    gpus_per_worker: float,
    storage: Path,
) -> None:
    """Call `work(exchange, device, job)` on every one of `workers` processes; dead ones are replaced.

    `RAY_ADDRESS` names a cluster; without it a local one is started. `work` goes on from its own checkpoints.
    """
    name = f"run-{os.getpid()}"
    scaling = ScalingConfig(
        num_workers=workers,
        use_gpu=gpus_per_worker > 0,
        resources_per_worker={"CPU": 1} | ({"GPU": gpus_per_worker} if gpus_per_worker else {}),
    )
    run = RunConfig(
        name=name, storage_path=str(storage), failure_config=FailureConfig(max_failures=MAX_FAILURES)
    )
    with cluster(workers):
        require(ray.cluster_resources(), {"CPU": workers, "GPU": workers * gpus_per_worker})
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"work": work, "job": job},
            scaling_config=scaling,
            run_config=run,
        )
        try:
            complaint = trainer.fit().return_value
        finally:
            shutil.rmtree(storage / name, ignore_errors=True)
    if complaint:
        raise BadInput(complaint)


def require(there: Mapping[str, float], wanted: Mapping[str, float]) -> None:
    """Raise BadInput when a cluster can never give what is wanted; Ray Train would wait for ever."""
    for kind, number in wanted.items():
        if there.get(kind, 0) < number:
            raise BadInput(
                f"wanted {number:g} {kind}s for the training processes, the Ray cluster has {there.get(kind, 0):g}; "
                "lower --workers or cluster.gpus_per_worker, or name a larger cluster with RAY_ADDRESS"
            )


def _worker(config: dict[str, Any]) -> str | None:
    """Run the work; bad input is returned, not raised: trying again would not mend it."""
    torch.set_num_threads(1)  # two busy threads made tiny steps 40 times slower
    try:
        config["work"](Processes(), get_device(), config["job"])
    except BadInput as error:
        return str(error)
    return None
