"""Judge registered models on the current data set: which of them would be best today?

    python -m flows.evaluate [MODEL[@VERSION] …]       all versions of all models, or these
    prefect deployment run 'evaluate/manual' --params '{"models": ["nice@prod"]}'

Nothing in artifacts/ is touched.
"""

import sys

if __name__ == "__main__":  # what needs no Prefect is done first: its import takes seconds
    from flows.commands import evaluate_main

    sys.exit(evaluate_main())

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows.direct import LEASE
from genpipe.errors import GenpipeError
from tasks.failing import RunFailed, log_failures_in_one_line
from tasks.judging import JUDGED, Version, judge, versions
from tasks.leasing import alone
from tasks.tables import keep_table


@flow(name="evaluate")
@alone(LEASE)  # the data and the judges in artifacts/ stay as they are meanwhile
def evaluate(models: list[str] | None = None) -> Any:
    """Judge `models` (MODEL, MODEL@VERSION or MODEL@STAGE; all when none is given), one after the other.

    The table, with what was recorded when each was made beside it, goes to .genpipe/judged/; one that fails stops no other.
    """
    log_failures_in_one_line()
    root = Path.cwd()
    chosen = versions(root, models or [])
    rows = [judge_version.with_options(task_run_name=version.name)(root, version) for version in chosen]
    keep_table(rows, root / JUDGED / "models.tsv", "evaluate", "registered models on current data")
    failures = [f"{row['model']}@{row['version']}: {row['failure']}" for row in rows if "failure" in row]
    if failures:
        raise RunFailed("\n".join(failures))
    return Completed(message=f"{len(rows)} models; {JUDGED / 'models.tsv'} has them")


@task(cache_policy=NO_CACHE, persist_result=False)
def judge_version(root: Path, version: Version) -> dict[str, Any]:
    """A row of the table: the current metrics, those that were recorded, or why there are no current ones."""
    named = {"model": version.model, "version": version.version, "stages": ",".join(version.stages)}
    recorded = {f"{metric} (recorded)": value for metric, value in version.recorded.items()}
    try:
        return {**named, **judge(root, version), **recorded}
    except GenpipeError as error:
        return {**named, "failure": str(error), **recorded}
