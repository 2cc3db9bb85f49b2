"""Who is killed: how each is told by its command line, and when it is at work."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Words = list[str]


@dataclass(frozen=True)
class Victim:
    """A kind of process."""

    is_it: Callable[[Words], bool]
    within: float  # seconds after the first is seen
    uses_ray: bool = False
    is_deployed: bool = False  # the round has a server, a worker and a deployment
    all_of_them: bool = False  # every one that is found dies
    is_command: bool = (
        False  # the flow forks no stages from a warm process, whose forks all have its command line
    )
    is_warm: bool = False  # the flow has a warm process
    in_long_run: bool = False  # longer than its lease in the deployment's limit
    moment: Callable[[Path], bool] | None = None  # what the project's directory looks like when it dies


def _runs_module(words: Words, *module: str) -> bool:
    return any(words[at : at + 1 + len(module)] == ["-m", *module] for at in range(len(words)))


def is_guard(words: Words) -> bool:
    """The process that ends a stage's group."""
    return any(word.endswith("tasks/guard.py") for word in words)


def is_dvc(words: Words) -> bool:
    """DVC, at a stage, by whatever name it is started."""
    return "repro" in words and "--single-item" in words and not is_guard(words)


def _is_server(words: Words) -> bool:
    return "prefect.server.api.server:create_app" in words or _runs_module(
        words, "prefect", "server", "start"
    )


def _is_warm(words: Words) -> bool:
    return any(word.endswith("tasks/warm_process.py") for word in words)


def _is_flow(words: Words) -> bool:
    return _runs_module(words, "flows.retrain")


def _is_lock_written(root: Path) -> bool:
    """By itself DVC writes in place: the file is empty for as long as its entries are put into YAML."""
    path = root / "dvc.lock"
    return (root / "dvc.lock.partial").exists() or (path.exists() and not path.stat().st_size)


VICTIMS = {
    "flow": Victim(_is_flow, within=20),
    "dvc": Victim(is_dvc, within=8, is_command=True),
    "dvc at dvc.lock": Victim(is_dvc, within=0, all_of_them=True, is_command=True, moment=_is_lock_written),
    "guard": Victim(is_guard, within=8, is_command=True),
    "stage": Victim(
        lambda words: len(words) > 1 and words[1].endswith("/bin/genpipe"), within=8, is_command=True
    ),
    "warm process": Victim(_is_warm, within=20, is_warm=True),  # or a guard, DVC or stage that it has forked
    "Ray worker": Victim(
        lambda words: bool(words) and words[0].startswith("ray::") and words[0].rstrip() != "ray::IDLE",
        within=3,
        uses_ray=True,
    ),
    "raylet": Victim(
        lambda words: bool(words) and words[0].endswith("/raylet/raylet"), within=5, uses_ray=True
    ),
    "own server": Victim(_is_server, within=15),  # the one that the flow starts for itself
    "flow of a worker": Victim(
        lambda words: _runs_module(words, "prefect.flow_engine") or _runs_module(words, "prefect.engine"),
        within=20,
        is_deployed=True,
    ),
    "Prefect server": Victim(_is_server, within=20, is_deployed=True, all_of_them=True),
    "Prefect server in a long run": Victim(
        _is_server, within=200, is_deployed=True, all_of_them=True, in_long_run=True
    ),
    "Prefect worker": Victim(
        lambda words: _runs_module(words, "prefect", "worker", "start"),
        within=20,
        is_deployed=True,
        all_of_them=True,
    ),
}


def stages_of(commands: list[Words]) -> list[str]:
    """The stages that these processes run."""
    return sorted({words[-1] for words in commands if is_dvc(words)})
