"""The block that says where work runs."""

from typing import Literal

from pydantic import Field

from genpipe.params.blocks import Block


class Cluster(Block):
    """Where work runs. No artifact depends on it."""

    workers: int = Field(2, ge=0, description="worker processes of a stage; 0 runs in process, without Ray")
    max_workers: int | None = Field(
        None, ge=1, description="training takes up to so many processes as Ray nodes join; else `workers`"
    )
    storage: str | None = Field(
        None, description="directory or fsspec URL where trainings keep checkpoints; else .genpipe/runs"
    )
    max_parallel: int = Field(1, ge=1, description="stages that a flow runs at once")
    gpus_per_worker: float = Field(0, ge=0)
    executor: Literal["auto", "local", "ray"] = Field(
        "auto", description="what counts and encodes: processes of this machine, Ray, or what pays off"
    )
    memory_mb: int = Field(256, ge=1, description="for the counts of a worker; more is spilled to disk")
