"""What a round is played with: the draw, the project, and how it is run."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tasks.warm import SWITCH
from tests.chaos import pipeline
from tests.chaos.deployment import PREFECT

UNDISTURBED = 1200  # seconds a run may take
# seconds in which what a kill has left must have ended; Prefect waits 120 for a server it started
SETTLED = 180


@dataclass(frozen=True)
class Draw:
    """What chance has chosen for a round."""

    number: int
    victim: str
    stages: tuple[str, ...]
    delay: float  # seconds from the first sight of a victim to its end
    which: float  # of those that live then, from 0 to 1
    forgets_lock: bool


@dataclass(frozen=True)
class Strike:
    """A kill: when, counted from the start of the run, and what was going on."""

    seconds: float
    interrupted: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a round."""

    draw: Draw
    strike: Strike | None
    recovery: float  # seconds of the second run
    complaints: tuple[str, ...]


@dataclass(frozen=True)
class Arena:
    """The project, what an undisturbed run has made of it, and how it is run."""

    root: Path
    scratch: Path
    targets: tuple[str, ...]
    state: pipeline.State
    is_warm: bool = True  # whether flows may fork their stages from a warm process

    @property
    def command(self) -> list[str]:
        """The run, by hand."""
        return [sys.executable, "-m", "flows.retrain", *self.targets]

    @property
    def deployed_command(self) -> list[str]:
        """The run, on the worker."""
        return [*PREFECT, *self.words, "--watch"]

    @property
    def words(self) -> list[str]:
        """What is said to Prefect to have a deployed run."""
        return [
            "deployment",
            "run",
            "retrain/manual",
            "--param",
            f"targets={json.dumps(self.targets or None)}",
        ]

    @property
    def environment(self) -> dict[str, str]:
        """Everything that a run writes outside the project is below the scratch directory."""
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        own = {
            "PYTHONPATH": str(self.root),
            "PREFECT_HOME": str(self.scratch / "prefect"),
            "TMPDIR": str(self.scratch / "t"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "30",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",  # else a scheduled run meets that of the round
            "DO_NOT_TRACK": "1",
            SWITCH: "on" if self.is_warm else "off",
            "DVC_NO_ANALYTICS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        return inherited | own

    def log(self, name: object) -> Path:
        """Where the processes of a round print to."""
        return self.scratch / f"{name}.log"


_FOREIGN = ("PREFECT_API_URL", "RAY_ADDRESS")  # a server or a cluster of somebody else is not attacked
