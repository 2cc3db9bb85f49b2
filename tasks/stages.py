"""The stages of a plan as Prefect tasks."""

import contextlib
import os
import queue
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from genpipe.cores import cores
from genpipe.graph import Plan, Stage
from genpipe.params.cluster import WORKERS
from genpipe.params.cluster import Cluster as Settings
from genpipe.params.project import read_params
from tasks.cluster import Cluster, shared
from tasks.order import downstream, hastened, next_to_start, startable
from tasks.reproduce import HOUSEKEEPING, PROGRESS, Processes, StageFailed, StageRun, log_of, reproduce
from tasks.times import Times, keep_time, read_times, share
from tasks.warm import warm_for

RETRY_DELAY = 5  # seconds
LINES_AT_ONCE, LINES_PER_SECOND = 50, 10  # of a stage to Prefect's API; the log has them all


@dataclass(frozen=True)
class Outcomes:
    """What became of the stages of a plan: those that ended well, why others failed, and those that therefore did not run."""

    runs: tuple[StageRun, ...]
    failures: tuple[str, ...]
    not_run: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """What stages run with: how many at once, what ends all their processes, their Ray cluster, if they share one.

    `settings` is the block `cluster` of the flow's project; `cores` are those that the stages divide.
    """

    max_parallel: int
    processes: Processes
    cluster: Cluster | None
    settings: Settings
    cores: int

    def uses_ray(self, stage: Stage) -> bool:
        """Whether a stage works on Ray, where its processes may be on other machines."""
        is_open = self.settings.executor_of(stage.name) == "auto" and bool(os.environ.get("RAY_ADDRESS"))
        return stage.needs.ray and (is_open or self.settings.is_on_ray(stage.name))

    def is_on_its_cluster(self, stage: Stage) -> bool:
        """Whether a stage works on the cluster that ends with the flow."""
        return self.cluster is not None and self.uses_ray(stage)


class Progress:
    """A progress artifact, fed by lines like `nice: 42 % (840 of 2000 steps)`."""

    def __init__(self, stage: str):
        self._stage = stage
        self._artifact: UUID | None = None
        self._shown_at = -1.0  # on the monotonic clock

    def read(self, line: str) -> None:
        """Show the progress that a line tells of, at most once a second."""
        found = PROGRESS.fullmatch(line)
        if found and time.monotonic() - self._shown_at >= 1.0:
            self._show(min(float(found["percent"]), 100.0), found["rest"])

    def finish(self) -> None:
        """Show that all is done, if progress was ever shown."""
        if self._artifact is not None:
            self._show(100.0, "done")

    def _show(self, percent: float, rest: str) -> None:
        self._shown_at = time.monotonic()
        key = "progress-" + re.sub("[^a-z0-9]+", "-", self._stage.lower()).strip("-")
        with contextlib.suppress(httpx.HTTPError):  # training does not end because a bar could not be drawn
            if self._artifact is None:
                created = create_progress_artifact(percent, key, f"{self._stage}: {rest}")
                self._artifact = cast(UUID, created)  # a coroutine only where an event loop runs
            else:
                update_progress_artifact(self._artifact, percent, f"{self._stage}: {rest}")


class Trickle:
    """Passes lines on to `tell`, but no flood of them; of those held back it tells how many."""

    def __init__(self, tell: Callable[[str], None], log: Path):
        self._tell, self._log = tell, log
        self._room, self._at = float(LINES_AT_ONCE), time.monotonic()
        self._held_back = 0

    def pass_on(self, line: str) -> None:
        """Tell a line, if there is room for it."""
        now = time.monotonic()
        self._room = min(LINES_AT_ONCE, self._room + (now - self._at) * LINES_PER_SECOND)
        self._at = now
        if self._room < 1:
            self._held_back += 1
            return
        self.finish()
        self._room -= 1
        self._tell(line)

    def finish(self) -> None:
        """Say how many lines were held back since the last one."""
        if self._held_back:
            self._tell(f"… {self._held_back} more lines are in {self._log}")
            self._held_back = 0


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{stage.name}")
def run_stage(root: Path, stage: Stage, here: Place, workers: int) -> StageRun:
    """Run one stage on at most that many processes, or raise StageFailed."""
    logger, progress = get_run_logger(), Progress(stage.name)
    trickle = Trickle(logger.info, log_of(stage.name))

    def show(line: str) -> None:
        progress.read(line)
        if not HOUSEKEEPING.match(line):
            trickle.pass_on(line)

    environment = {} if here.uses_ray(stage) else {WORKERS: str(workers)}
    if here.cluster and here.is_on_its_cluster(stage):
        meeting = here.cluster.environment()
        environment |= meeting
        if not meeting:
            logger.warning(
                f"no Ray cluster of the flow, so this stage has its own: {here.cluster.last_words()}"
            )
    try:
        run = reproduce(root, stage, here.processes, show, environment)
    finally:
        trickle.finish()
    progress.finish()
    if run.outcome == "ran":
        keep_time(root, stage.name, workers, run.seconds)
    words = {"ran": "done", "restored": "outputs taken from the cache", "skipped": "nothing changed"}
    logger.info(f"{words[run.outcome]} in {run.seconds:.1f} s")
    return run


@contextlib.contextmanager
def place(root: Path, plans: Sequence[Plan], max_parallel: int, in_root: bool = False) -> Iterator[Place]:
    """Where the stages of these plans run; however it is left (a signal, Ctrl-C, an error), none of them goes on running.

    `in_root`: they are stages of the project itself, not of workspaces with code of their own, so a warm process may fork them.
    """
    params = read_params(root)
    stages = [stage for plan in plans for stage in plan.stale] if in_root else []
    with shared(params, plans, max_parallel) as cluster, warm_for(root, stages) as warm:
        processes = Processes(warm)
        try:
            yield Place(max_parallel, processes, cluster, params.cluster, cores())
        except BaseException:  # threads do not see a signal
            processes.end_all()
            raise


def run_stages(root: Path, plan: Plan, here: Place) -> Outcomes:
    """Run the stale stages of a plan, each after those it needs; one that fails takes only its downstream with it."""
    waiting = list(plan.stale)
    times = read_times(root, plan.stages)
    # the sooner all that use the cluster have ended, the sooner its memory and its share of the cores are free
    on_ray = [stage for stage in waiting if here.is_on_its_cluster(stage)]
    chains = hastened(times.chains(waiting), waiting, on_ray)
    claims = {stage.name: here.settings.workers for stage in on_ray}
    processes: dict[str, int] = {}
    finished: queue.SimpleQueue[Stage] = queue.SimpleQueue()
    futures: dict[str, PrefectFuture[StageRun]] = {}
    running: list[Stage] = []
    runs: list[StageRun] = []
    failures: list[str] = []
    not_run: list[str] = []
    while waiting or running:
        while stage := next_to_start(waiting, running, here.max_parallel, chains, claims):
            others = min(len(startable(waiting, running)), here.max_parallel - len(running)) - 1
            free = here.cores - sum(processes[other.name] for other in running)
            processes[stage.name] = processes_of(stage, here, free, others, times)
            waiting.remove(stage)
            running.append(stage)
            futures[stage.name] = _submit(root, stage, here, processes[stage.name], futures)
            futures[stage.name].add_done_callback(lambda _, stage=stage: finished.put(stage))
        ended = finished.get()
        running.remove(ended)
        if here.cluster and ended in on_ray:
            here.cluster.leave()
        try:
            runs.append(futures[ended.name].result())
        except StageFailed as error:
            failures.append(str(error))
            lost = downstream(ended.name, waiting)
            waiting = [stage for stage in waiting if stage not in lost]
            not_run += [stage.name for stage in lost]
    return Outcomes(tuple(runs), tuple(failures), tuple(not_run))


def processes_of(stage: Stage, here: Place, free: int, others: int, times: Times) -> int:
    """How many processes a stage gets: on Ray as many as it may have."""
    if not stage.needs.ray:
        return 1
    if here.uses_ray(stage):
        return here.settings.workers
    return share(stage, here.settings.workers, free, others, times)


def _submit(
    root: Path, stage: Stage, here: Place, workers: int, futures: dict[str, PrefectFuture[StageRun]]
) -> PrefectFuture[StageRun]:
    prepared = run_stage.with_options(
        retries=stage.needs.retries, retry_delay_seconds=RETRY_DELAY, retry_condition_fn=is_worth_a_retry
    )
    upstream = [futures[name] for name in stage.upstream if name in futures]
    return prepared.submit(root, stage, here, workers, wait_for=upstream)  # pyright: ignore[reportCallIssue]


def is_worth_a_retry(_task: Any, _task_run: Any, state: Any) -> bool:
    """Whether another attempt could end otherwise: not when the input is at fault or the flow is being ended."""
    return not (isinstance(state.data, StageFailed) and state.data.is_final)
