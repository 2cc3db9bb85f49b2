"""Where the processes of Ray Train meet, when all of them are on this machine: at a file, and on loopback.

torch's own meeting point is a server that listens on all interfaces and asks nobody who he is; so does gloo's connection
of each pair. With GPUs, and between machines, Ray Train's way is kept.
"""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from genpipe.training.group import LOOPBACK, meet


@dataclass
class AtAFile(TorchConfig):
    """A process group of gloo whose members meet at a new file in `directory`."""

    directory: str = ""

    @property
    def backend_cls(self) -> type["_Backend"]:
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        assert isinstance(backend_config, AtAFile)
        Path(backend_config.directory).mkdir(parents=True, exist_ok=True)
        file = Path(backend_config.directory) / f"meeting-{uuid.uuid4()}"
        size = len(worker_group)
        ray.get([worker_group.execute_single_async(n, meet, file, n, size) for n in range(size)])


def is_alone() -> bool:
    """Whether the Ray that is joined is one machine, and listens on loopback alone."""
    return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]} == {LOOPBACK}
