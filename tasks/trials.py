"""Run the same stages in several workspaces, and keep what came out: a trial that is finished is not run again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from genpipe.errors import GenpipeError
from genpipe.files import read_json, write_json
from genpipe.graph import Plan, read_plan
from tasks.failing import RunFailed
from tasks.order import downstream
from tasks.stages import Place, place, run_stages
from tasks.trial import Trial
from tasks.workspace import TRIALS, code_of_the_workspace, open_workspace

Metrics = Mapping[str, Mapping[str, float]]  # recipe -> metric -> value


@dataclass(frozen=True)
class Result:
    """What came out of a trial: its metrics, or why there are none."""

    metrics: Metrics
    failure: str = ""
    workspace: str = ""  # its name below .genpipe/trials; none where it could not be made

    def row(self, recipe: str | None = None) -> dict[str, Any]:
        """What a table says of it: the metrics of one recipe, or of all with the recipe before each name."""
        named = {f"{each}.{name}": value for each, of in self.metrics.items() for name, value in of.items()}
        metrics = named if recipe is None else dict(self.metrics.get(recipe, {}))
        failure = {"failure": self.failure} if self.failure else {}
        return {**metrics, **failure, "workspace": self.workspace}


@dataclass(frozen=True)
class Prepared:
    """A trial whose workspace is there, with the stages that are out of date in it."""

    trial: Trial
    workspace: Path
    plan: Plan


def run_trials(
    root: Path, trials: Sequence[Trial], max_parallel: int, varied: str | None = None
) -> list[Result]:
    """Run those trials that are not finished, `max_parallel` at once, in order; one that fails stops no other.

    `varied` is the stage from which on the trials differ: what comes before it is run once, in the first of them.
    """
    found = [_prepare(root, trial) for trial in trials]  # one by one: reading a plan changes the directory
    # two revisions may have the same data: then they have one workspace
    waiting = list({one.workspace: one for one in found if isinstance(one, Prepared)}.values())
    get_run_logger().info(f"{len(waiting)} of {len(trials)} trials are to be run")
    plans = [one.plan for one in waiting]
    with code_of_the_workspace(), place(root, plans, max_parallel) as here:
        if waiting and varied:
            _run_shared(waiting[0], varied, here)
        results = _run_all(waiting, here)
    return [results[one.workspace] if isinstance(one, Prepared) else one for one in found]


def require_success(trials: Sequence[Trial], results: Sequence[Result]) -> None:
    """Raise RunFailed with a line for each trial that failed."""
    pairs = zip(trials, results, strict=True)
    failures = [
        f"{trial.name}: {result.failure}{_where(result)}" for trial, result in pairs if result.failure
    ]
    if failures:
        raise RunFailed("\n".join(failures))


def _where(result: Result) -> str:
    return f" (below {TRIALS / result.workspace})" if result.workspace else ""


def _prepare(root: Path, trial: Trial) -> Prepared | Result:
    try:
        workspace = open_workspace(root, trial.contents)
        if (kept := _kept(workspace)).exists():
            return Result(read_json(kept), workspace=workspace.name)
        plan = read_plan(workspace, list(trial.contents.targets) or None)
        plan.require_inputs()
    except GenpipeError as error:
        return Result({}, str(error))
    return Prepared(trial, workspace, plan)


def _run_shared(first: Prepared, varied: str, here: Place) -> None:
    stages = first.plan.stages
    own = {varied, *(stage.name for stage in downstream(varied, list(stages)))}
    shared = Plan(tuple(stage for stage in stages if stage.name not in own))
    if failures := run_stages(first.workspace, shared, here).failures:
        raise RunFailed("\n".join(failures))


def _run_all(waiting: list[Prepared], here: Place) -> dict[Path, Result]:
    with ThreadPoolTaskRunner(max_workers=here.max_parallel) as runner:
        try:
            alone = place_of_one(here, len(waiting))
            futures = {prepared.workspace: _submit(runner, prepared, alone) for prepared in waiting}
            return {workspace: future.result() for workspace, future in futures.items()}
        except BaseException:  # before the runner waits for its threads
            here.processes.end_all()
            raise


def _submit(runner: ThreadPoolTaskRunner[Any], prepared: Prepared, here: Place) -> PrefectFuture[Result]:
    named = run_trial.with_options(task_run_name=prepared.trial.name.replace("{", "{{").replace("}", "}}"))
    return runner.submit(named, {"prepared": prepared, "here": here})


def place_of_one(here: Place, trials: int) -> Place:
    """What one of so many trials runs with: its part of the cores, and one stage at a time."""
    at_once = max(1, min(here.max_parallel, trials))
    return replace(here, max_parallel=1, cores=max(1, here.cores // at_once))


@task(cache_policy=NO_CACHE, persist_result=False)
def run_trial(prepared: Prepared, here: Place) -> Result:
    """Run what is out of date in a workspace; its metrics are kept there when all of it went well."""
    outcomes = run_stages(prepared.workspace, prepared.plan, here)
    if outcomes.failures:
        return Result({}, outcomes.failures[0], prepared.workspace.name)
    paths = sorted((prepared.workspace / "artifacts" / "metrics").glob("*.json"))
    result = Result({path.stem: read_json(path) for path in paths}, workspace=prepared.workspace.name)
    write_json(_kept(prepared.workspace), result.metrics)
    return result


def _kept(workspace: Path) -> Path:
    return workspace / ".genpipe" / "result.json"
