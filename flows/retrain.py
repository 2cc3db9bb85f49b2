"""Bring every artifact up to date: plan, run the stages that are out of date, verify, show.

    python -m flows.retrain [STAGE …]                from the root of the project; starts Prefect's server if none is set
    prefect deployment run 'retrain/manual' --watch  where prefect.yaml is deployed and a worker runs

The graph is dvc.yaml's; nothing is listed here a second time.
"""

import sys

if __name__ == "__main__":  # what needs no Prefect is done first: its import takes seconds
    from flows.direct import main

    sys.exit(main())

import logging
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.direct import LEASE, REPORT, RunFailed, prepare
from genpipe import lease
from genpipe.errors import BadInput
from genpipe.graph import NotVerified, verify
from tasks import attempts
from tasks.report import show
from tasks.reproduce import StageFailed
from tasks.stages import Outcomes, run_stages


@flow(name="retrain", task_runner=ThreadPoolTaskRunner())  # pyright: ignore  (its type is invariant)
def retrain(
    targets: list[str] | None = None, max_parallel: int | None = None, retry_failed: bool = False
) -> Any:
    """Run what is out of date in the project of the current directory.

    `targets` are stages or groups of dvc.yaml (all of them when none is given), brought up to date with all they need;
    `max_parallel` stages run at once (params.yaml's when not given); with `retry_failed` also those run that died too
    often with the very same inputs.
    """
    _log_failures_in_one_line()
    root = Path.cwd()
    with lease.hold(root, LEASE):
        if retry_failed:
            attempts.forget(root)
        limit, plan = prepare(root, targets, max_parallel)
        if not plan.stale:
            return Completed(name="UpToDate", message=plan.describe())
        get_run_logger().info(f"{len(plan.stale)} of {len(plan.stages)} stages are out of date")
        outcomes = run_stages(root, plan, limit)
        show(root, plan, outcomes, root / REPORT)
        _require_success(outcomes)
        verify(root, targets)
    return Completed(message=f"{len(outcomes.runs)} stages are up to date")


def _require_success(outcomes: Outcomes) -> None:
    if outcomes.failures:
        lost = f"not run because of that: {', '.join(outcomes.not_run)}"
        raise RunFailed("\n".join([*outcomes.failures, *([lost] if outcomes.not_run else [])]))


def _log_failures_in_one_line() -> None:
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], StageFailed | RunFailed | NotVerified | BadInput):
        record.exc_info = None  # the message says it all; where it was raised says nothing
    return True
