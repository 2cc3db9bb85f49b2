"""The block that says where work runs."""

import os
from typing import Annotated, Literal, Self

from pydantic import Field

from genpipe.params.blocks import Block

Where = Literal["auto", "local", "ray"]
EITHER = ("count", "encode", "discover", "train")  # the stages that work on Ray or without it
StageName = Annotated[str, Field(pattern=rf"^({'|'.join(EITHER)})(@.+)?$")]

WORKERS = "GENPIPE_WORKERS"  # in the environment of a stage: how many processes the flow gives it


class Cluster(Block):
    """Where work runs. No artifact depends on it."""

    workers: int = Field(
        2,
        ge=0,
        description="worker processes of a stage at most, also of one that draws samples; 0 runs in process, without Ray",
    )
    max_workers: int | None = Field(
        None, ge=1, description="training takes up to so many processes as Ray nodes join; else `workers`"
    )
    storage: str | None = Field(
        None, description="directory or fsspec URL where trainings keep checkpoints; else .genpipe/runs"
    )
    max_parallel: int | None = Field(
        None, ge=1, description="stages that a flow runs at once; else as many as there are cores"
    )
    gpus_per_worker: float = Field(0, ge=0)
    executor: Where = Field(
        "auto",
        description="what counts, encodes, finds words and trains: processes of this machine, Ray, or what pays off; training is on Ray "
        "where RAY_ADDRESS names a cluster or gpus_per_worker is above 0, else local",
    )
    executors: dict[StageName, Where] = Field(
        default_factory=dict,
        description="another executor for some stages, such as count or train@nice: the stage's name goes before its group's",
    )
    memory_mb: int = Field(256, ge=1, description="for the counts of a worker; more is spilled to disk")

    def executor_of(self, stage: str) -> Where:
        """The executor of a stage such as train@nice."""
        group, _, _ = stage.partition("@")
        return self.executors.get(stage) or self.executors.get(group) or self.executor

    def is_on_ray(self, stage: str) -> bool:
        """Whether a stage that can work on Ray does, as far as is known before it runs; one of another kind always does."""
        group, executor = stage.partition("@")[0], self.executor_of(stage)
        needs_gpus = group == "train" and self.gpus_per_worker > 0
        return group not in EITHER or executor == "ray" or (executor == "auto" and needs_gpus)

    def as_allotted(self) -> Self:
        """These settings with no more workers than the flow gives the stage that this process runs; outside a flow, themselves."""
        given = os.environ.get(WORKERS, "")
        if not given.isdecimal():
            return self
        return self.model_copy(update={"workers": min(self.workers, int(given)), "max_workers": None})
