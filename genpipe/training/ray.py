"""The same training on the processes of Ray Train: one machine, or many."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # a dead worker is noticed sooner

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from genpipe.corpus.actors import cluster
from genpipe.errors import BadInput
from genpipe.training.logical import Exchange, Processes

MAX_FAILURES = 3  # of workers, in one run of the command

Work = Callable[[Exchange, torch.device, dict[str, Any]], None]


def train_on_workers(
    work: Work, arguments: dict[str, Any], workers: int, gpus_per_worker: float, storage: Path
) -> None:
    """Call `work(exchange, device, arguments)` on every one of `workers` processes; dead ones are replaced.

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
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"work": work, "arguments": arguments},
            scaling_config=scaling,
            run_config=run,
        )
        try:
            complaint = trainer.fit().return_value
        finally:
            shutil.rmtree(storage / name, ignore_errors=True)
    if complaint:
        raise BadInput(complaint)


def _worker(config: dict[str, Any]) -> str | None:
    """Run the work; bad input is returned, not raised: trying again would not mend it."""
    torch.set_num_threads(1)  # two busy threads made tiny steps 40 times slower
    try:
        config["work"](Processes(), get_device(), config["arguments"])
    except BadInput as error:
        return str(error)
    return None
