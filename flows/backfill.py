"""Run the current code and parameters on the raw data of other revisions, each in a workspace of its own.

    python -m flows.backfill --revisions v1 v2 HEAD [--targets evaluate]
    prefect deployment run 'backfill/manual' --params '{"revisions": ["v1", "v2"]}'

The same command goes on where it stopped; what is finished is not run again. Nothing in artifacts/ is touched.
"""

import sys

if __name__ == "__main__":  # what needs no Prefect is done first: its import takes seconds
    from flows.commands import backfill_main

    sys.exit(backfill_main())

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.asking import TRIALS_LEASE, BackfillRequest, trials_at_once
from tasks.failing import log_failures_in_one_line
from tasks.leasing import alone
from tasks.tables import keep_table
from tasks.trials import require_success, run_trials


@flow(name="backfill", task_runner=ThreadPoolTaskRunner())  # pyright: ignore  (its type is invariant)
@alone(TRIALS_LEASE)
def backfill(revisions: list[str], targets: list[str] | None = None, max_parallel: int | None = None) -> Any:
    """Run `targets` (everything when none is given) on the data of each Git revision, the oldest first.

    `max_parallel` revisions run at once (params.yaml's when not given). The table of metrics goes to .genpipe/backfills/.
    """
    log_failures_in_one_line()
    root, request = Path.cwd(), BackfillRequest(revisions, targets)
    limit, trials = trials_at_once(root, max_parallel), request.trials(root)
    results = run_trials(root, trials, limit)
    rows = [{**trial.settings, **result.row()} for trial, result in zip(trials, results, strict=True)]
    table = root / request.directory / "revisions.tsv"
    keep_table(rows, table, "backfill", "metrics of the current code on earlier data, the oldest first")
    require_success(trials, results)
    return Completed(message=f"{len(trials)} revisions; {request.directory / table.name} has them")
