"""The workflow, measured on this machine against `dvc` alone and against Kedro.

python -m benchmarks.workflow [PART ...] [--kedro PYTHON] [--rounds 5] [--seconds 20] [--quiet-only]

PART is plan, idle, parallel, overhead, ray or kedro; without one, all of them. PYTHON has
benchmarks/peers/requirements-workflow.txt. The flow's Prefect server runs before anything is measured, as it does where
a deployment runs; without one a flow that has work starts its own, which takes some seconds more.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from benchmarks import measure
from genpipe.errors import BadInput, GenpipeError

PROJECT = Path(__file__).parents[1]
KEDRO = PROJECT / "benchmarks" / "peers" / "workflow_kedro.py"
STEP = """\
import pathlib, sys, time
name, seconds, *above = sys.argv[1:]
end = time.process_time() + float(seconds)  # as much work on a busy machine as on a quiet one
while time.process_time() < end:
    pass
pathlib.Path(name).write_text("\\n".join([name, *(pathlib.Path(file).read_text() for file in above)]))
"""
RAY_STEP = """\
import pathlib, sys
import ray
from genpipe.corpus.actors import cluster
@ray.remote
def work():
    pass
with cluster(1):
    ray.get(work.remote())
pathlib.Path(sys.argv[1]).write_text("done")
"""
CHAIN = {  # eight steps, some of which can run beside each other
    "ingest": [],
    "clean": ["ingest"],
    "left": ["clean"],
    "right": ["clean"],
    "train-left": ["left"],
    "train-right": ["right"],
    "judge": ["train-left", "train-right"],
    "report": ["judge"],
}

Graph = Mapping[str, Sequence[str]]
Contestant = Callable[[], float]  # a run of it: the seconds that are compared


@dataclass(frozen=True)
class Setting:
    """How often, how long, against whom."""

    rounds: int
    seconds: float
    kedro: str
    quiet_only: bool


@dataclass(frozen=True)
class Row:
    """A line of the table: seconds, round by round, of what is measured and of what it is compared with."""

    part: str
    what: str
    seconds: list[float]
    base: list[float] | None = None
    target: str = ""

    def __str__(self) -> str:
        ratios = [b / s for s, b in zip(self.seconds, self.base or [], strict=bool(self.base))]
        beside = spread(ratios) if ratios else ""
        return f"| {self.part} | {self.what} | {spread(self.seconds)} | {beside} | {self.target} |"


class Repository:
    """A DVC repository of a graph of steps; all that have nothing above them need the file `tick`."""

    def __init__(
        self, root: Path, graph: Graph, seconds: float = 0.0, step: str = STEP, shares_ray: bool = False
    ) -> None:
        self.root = root
        self.graph = graph
        root.mkdir()
        for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
            subprocess.run(command, cwd=root, check=True)
        (root / "step.py").write_text(step)
        (root / "params.yaml").write_text("datasets: {}\ncluster: {max_parallel: 2}\n")
        meta = {"meta": {"genpipe": {"ray": True}}} if shares_ray else {}
        stages = {name: _stage(name, above, seconds) | meta for name, above in graph.items()}
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        self.tick()

    def tick(self) -> None:
        """Make all stages out of date."""
        (self.root / "tick").write_text(str(time.time_ns()))

    def run(self, *command: str) -> tuple[float, float]:
        """Run a command here: its seconds, and those that it tells by itself (else the same)."""
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "DVC_NO_ANALYTICS": "1"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        started = time.perf_counter()
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise BadInput(f"{' '.join(command)}: ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return seconds, _seconds_in(done.stdout, seconds)

    def wall(self, *command: str, anew: bool = False) -> Contestant:
        """A contestant: the seconds of a command, after all was made out of date if `anew`."""
        return lambda: self._measured(command, anew)[0]

    def work(self, *command: str, anew: bool = False) -> Contestant:
        """The same, but the seconds that the command tells of its work."""
        return lambda: self._measured(command, anew)[1]

    def _measured(self, command: Sequence[str], anew: bool) -> tuple[float, float]:
        if anew:
            self.tick()
        return self.run(*command)


def _stage(name: str, above: Sequence[str], seconds: float) -> dict[str, object]:
    words = [sys.executable, "step.py", name, str(seconds), *(above or ["tick"])]
    return {"cmd": " ".join(words), "deps": ["step.py", *(above or ["tick"])], "outs": [name]}


def _seconds_in(output: str, otherwise: float) -> float:
    last = (output.strip().splitlines() or [""])[-1]
    return json.loads(last)["seconds"] if last.startswith('{"seconds"') else otherwise


DVC = (sys.executable, "-m", "dvc")
REPRO = (*DVC, "repro")
FLOW = (sys.executable, "-m", "benchmarks.flow")
BY_PREFECT = (*FLOW, "--by-prefect")


def independent(number: int) -> Graph:
    """Steps that need nothing of each other."""
    return {f"step-{name:02}": [] for name in range(number)}


# ------------------------------------------------------------------------------------------------------- the parts


def plan(setting: Setting, scratch: Path) -> list[Row]:
    """What is out of date among 30 stages, all of them being up to date."""
    repository = Repository(scratch / "plan", independent(30))
    repository.run(*REPRO)
    seconds = alternated(
        {
            "dvc status": repository.wall(*DVC, "status"),
            "genpipe plan": repository.wall(sys.executable, "-m", "genpipe.cli", "plan"),
            "read_plan, after import": repository.work(sys.executable, "-c", PLAN),
        },
        setting,
        "plan",
    )
    target = {"genpipe plan": "< 0.5 s", "read_plan, after import": ""}
    return rows("30 stages", seconds, "dvc status", target)


PLAN = """
import json, pathlib, time
from genpipe.graph import read_plan
started = time.perf_counter()
read_plan(pathlib.Path.cwd())
print(json.dumps({"seconds": time.perf_counter() - started}))
"""


def idle(setting: Setting, scratch: Path) -> list[Row]:
    """Nothing is out of date."""
    repository = Repository(scratch / "idle", CHAIN)
    repository.run(*REPRO)
    seconds = alternated(
        {
            "dvc repro": repository.wall(*REPRO),
            "flow, all of it": repository.wall(sys.executable, "-m", "flows.retrain"),
            "flow, after import": repository.work(*FLOW),
            "flow by Prefect, after import": repository.work(*BY_PREFECT),
        },
        setting,
        "idle",
    )
    target = {"flow, after import": "< 2 s", "flow by Prefect, after import": "< 2 s"}
    return rows("nothing to do, 8 stages", seconds, "dvc repro", target)


def parallel(setting: Setting, scratch: Path) -> list[Row]:
    """Two stages that need nothing of each other and have a core each."""
    repository = Repository(scratch / "parallel", independent(2), setting.seconds)
    seconds = alternated(
        {
            "dvc repro": repository.wall(*REPRO, anew=True),
            "flow, all of it": repository.wall(sys.executable, "-m", "flows.retrain", anew=True),
        },
        setting,
        "parallel",
    )
    title = f"2 stages of {setting.seconds:g} CPU s"
    return rows(title, seconds, "dvc repro", {"flow, all of it": ">= 1.6 x"})


def overhead(setting: Setting, scratch: Path) -> list[Row]:
    """What the flow takes beyond `dvc repro --single-item` of each stage, one after the other; seconds a stage."""
    found = []
    for number in (1, 8):
        repository = Repository(scratch / f"overhead-{number}", independent(number))
        (repository.root / "params.yaml").write_text("datasets: {}\ncluster: {max_parallel: 1}\n")
        seconds = alternated(
            {
                "dvc repro -s of each": _single_items(repository),
                "flow, after import": repository.work(*BY_PREFECT, anew=True),
            },
            setting,
            f"overhead, {number}",
        )
        alone, ours = (
            [value / number for value in seconds[name]]
            for name in ("dvc repro -s of each", "flow, after import")
        )
        above = [mine - theirs for mine, theirs in zip(ours, alone, strict=True)]
        title = f"{number} trivial stages, a stage"
        found += [
            Row(title, "dvc repro -s", alone),
            Row(title, "flow, after import", ours, alone),
            Row(title, "what the flow adds", above, target="< 1 s"),
        ]
    return found


def _single_items(repository: Repository) -> Contestant:
    def run() -> float:
        repository.tick()
        return sum(repository.run(*REPRO, "--single-item", name)[0] for name in repository.graph)

    return run


def ray(setting: Setting, scratch: Path) -> list[Row]:
    """Four stages that use Ray for a moment each, two at a time: each with a cluster of its own, or with the flow's."""
    own, shared = (
        Repository(scratch / f"ray-{name}", independent(4), step=RAY_STEP, shares_ray=name == "shared")
        for name in ("own", "shared")
    )
    flow = (sys.executable, "-m", "flows.retrain")
    seconds = alternated(
        {"a cluster each": own.wall(*flow, anew=True), "one of the flow": shared.wall(*flow, anew=True)},
        setting,
        "ray",
    )
    return rows("4 stages on Ray", seconds, "a cluster each", {})


def kedro(setting: Setting, scratch: Path) -> list[Row]:
    """Eight steps of a twentieth of the CPU seconds each; then once more, when nothing has changed."""
    if not setting.kedro:
        raise BadInput("--kedro: must be a Python that has benchmarks/peers/requirements-workflow.txt")
    each = setting.seconds / 20
    ours, theirs = (Repository(scratch / name, CHAIN, each) for name in ("kedro-ours", "kedro-theirs"))
    steps = (setting.kedro, str(KEDRO), ".", "--graph", json.dumps(CHAIN), "--seconds", str(each))
    found = []
    for title, anew in ((f"8 steps of {each:g} CPU s", True), ("again, nothing changed", False)):
        contestants = {
            "Kedro, sequential": theirs.wall(*steps, anew=anew),
            "Kedro, 2 processes": theirs.wall(*steps, "--parallel", "2", anew=anew),
            "dvc repro": ours.wall(*REPRO, anew=anew),
            "flow, all of it": ours.wall(sys.executable, "-m", "flows.retrain", anew=anew),
        }
        found += rows(title, alternated(contestants, setting, title), "Kedro, sequential", {})
    _require_equal(ours, theirs, steps)
    return found


def _require_equal(ours: Repository, theirs: Repository, steps: Sequence[str]) -> None:
    """Check that both write the same for the same input."""
    for repository, command in ((ours, REPRO), (theirs, steps)):
        (repository.root / "tick").write_text("the same")
        repository.run(*command)
    for name in CHAIN:
        if (ours.root / name).read_bytes() != (theirs.root / name).read_bytes():
            raise BadInput(f"{name}: the peer writes something else; a ratio of unequal work means nothing")


PARTS: dict[str, Callable[[Setting, Path], list[Row]]] = {
    "plan": plan,
    "idle": idle,
    "parallel": parallel,
    "overhead": overhead,
    "ray": ray,
    "kedro": kedro,
}


# ------------------------------------------------------------------------------------------------------- measuring


def alternated(contestants: Mapping[str, Contestant], setting: Setting, title: str) -> dict[str, list[float]]:
    """The seconds of each, round by round; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(setting.rounds + 1):
        for name in measure.rotated(list(contestants), number):
            if setting.quiet_only:
                measure.wait_for_quiet()
            value = contestants[name]()
            if number:
                seconds[name].append(value)
            line = f"round {number} of {setting.rounds}: {title}, {name}: {value:.2f} s"
            print(line, file=sys.stderr, flush=True)
    return seconds


def rows(part: str, seconds: Mapping[str, list[float]], base: str, target: Mapping[str, str]) -> list[Row]:
    """A row for each contestant, with the ratio of its speed to that of the base."""
    return [Row(part, name, taken, seconds[base], target.get(name, "")) for name, taken in seconds.items()]


def table(found: Sequence[Row]) -> str:
    """Markdown; ratios are those of speeds within a round, to the first row of a part."""
    head = [
        "| part | what | s, median (min-max) | x the first, median (min-max) | target |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(str, found)])


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the greatest, to three digits."""
    median, least, greatest = (f"{x:.3g}" for x in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least}-{greatest})"


@contextlib.contextmanager
def server(scratch: Path) -> Iterator[None]:
    """A Prefect server of our own, in the environment of what is run meanwhile."""
    port = _free_port()
    os.environ.update(
        PREFECT_HOME=str(scratch / "prefect"),
        PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
    )
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (scratch / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for_health(f"{os.environ['PREFECT_API_URL']}/health")
        yield
    finally:
        process.terminate()
        process.wait(60)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait_for_health(address: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(address).raise_for_status()
            return
        time.sleep(0.5)
    raise BadInput(f"{address}: Prefect's server did not start within 180 s; this machine is too busy")


def main() -> None:
    """Measure the parts and print their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--kedro", default="", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of CPU, of each of two parallel stages")
    parser.add_argument("--quiet-only", action="store_true", help="wait until other programs are quiet")
    given = parser.parse_args()
    try:
        parts = measure.chosen(given.parts, PARTS)
        setting = Setting(given.rounds, given.seconds, given.kedro, given.quiet_only)
        with tempfile.TemporaryDirectory(prefix="workflow-") as directory, server(Path(directory)):
            found = [row for part in parts for row in PARTS[part](setting, Path(directory))]
        print(table(found))
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
