"""Bring every artifact up to date: plan, run the stages that are out of date, verify, show; publish if asked to.

    python -m flows.retrain [STAGE …]                from the root of the project; starts Prefect's server if none is set
    prefect deployment run 'retrain/manual' --watch  where prefect.yaml is deployed and a worker runs

The graph is dvc.yaml's; nothing is listed here a second time.
"""

import sys

if __name__ == "__main__":  # what needs no Prefect is done first: its import takes seconds
    from flows.direct import main

    sys.exit(main())

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.direct import LEASE, REPORT, prepare, targets_of
from genpipe.graph import Plan, verify
from genpipe.params.project import read_params
from genpipe.report.page import write_report
from tasks import attempts
from tasks.changes import require_clean
from tasks.failing import RunFailed, log_failures_in_one_line
from tasks.leasing import alone
from tasks.promote import release
from tasks.report import show
from tasks.stages import Outcomes, place, run_stages
from tasks.times import expectation


@flow(name="retrain", task_runner=ThreadPoolTaskRunner())  # pyright: ignore  (its type is invariant)
@alone(LEASE)
def retrain(
    targets: list[str] | None = None,
    max_parallel: int | None = None,
    publish: bool = False,
    allow_dirty: bool = False,
    retry_failed: bool = False,
    set_name: str | None = None,
) -> Any:
    """Run what is out of date in the project of the current directory.

    `targets` are stages or groups of dvc.yaml (all of them when none is given), brought up to date with all they need;
    `set_name` adds the recipes of that set of params.yaml;
    `max_parallel` stages run at once (params.yaml's when not given). `publish` commits the results on a branch of their
    own and promotes the models that pass their rules; uncommitted changes are refused then, unless `allow_dirty`.
    With `retry_failed` also those stages run that died too often with the very same inputs.
    """
    log_failures_in_one_line()
    root = Path.cwd()
    if retry_failed:
        attempts.forget(root)
    targets = targets_of(root, targets, set_name)
    limit, plan = prepare(root, targets, max_parallel)
    if publish:
        require_clean(root, allow_dirty)
    if plan.stale:
        _bring_up_to_date(root, plan, limit, targets)
    is_released = publish and release(root, str(flow_run.name), allow_dirty).is_new
    if not plan.stale and not is_released:
        return Completed(name="UpToDate", message=plan.describe())
    return Completed(
        message=f"{len(plan.stages)} stages are up to date{' and published' if is_released else ''}"
    )


def _bring_up_to_date(root: Path, plan: Plan, limit: int, targets: list[str] | None) -> None:
    get_run_logger().info(f"{len(plan.stale)} of {len(plan.stages)} stages are out of date")
    get_run_logger().info(expectation(root, plan.stale, limit))
    with place(root, [plan], limit, in_root=True) as here:
        outcomes = run_stages(root, plan, here)
    try:
        write_report(root, read_params(root))  # from whatever is there, also where a stage failed
        show(root, plan, outcomes, root / REPORT)
    finally:
        # a stage that failed is said first, also where the report cannot be written
        _require_success(outcomes)
    verify(root, targets)


def _require_success(outcomes: Outcomes) -> None:
    if outcomes.failures:
        lost = f"not run because of that: {', '.join(outcomes.not_run)}"
        raise RunFailed("\n".join([*outcomes.failures, *([lost] if outcomes.not_run else [])]))
