"""Try values of params.yaml for one recipe: each combination is trained, sampled and judged in a workspace of its own.

    python -m flows.sweep nice --set train.solvers.nll.lr=1e-3,2e-3 --set train.network.hidden_dim=250,500
    prefect deployment run 'sweep/manual' --params '{"recipe": "nice", "grid": {"train.steps": [600, 1200]}}'

The same command goes on where it stopped; a finished trial is not run again. Nothing in artifacts/ is touched.
"""

import sys

if __name__ == "__main__":  # what needs no Prefect is done first: its import takes seconds
    from flows.commands import sweep_main

    sys.exit(sweep_main())

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.asking import TRIALS_LEASE, SweepRequest, trials_at_once
from genpipe import yaml_text
from genpipe.files import new_file
from tasks.failing import log_failures_in_one_line
from tasks.leasing import alone
from tasks.plotting import sweep_plot
from tasks.sweeping import is_maximised, metric_of
from tasks.tables import has_value, keep_table, sorted_by
from tasks.trials import require_success, run_trials
from tasks.workspace import TRIALS


@flow(name="sweep", task_runner=ThreadPoolTaskRunner())  # pyright: ignore  (its type is invariant)
@alone(TRIALS_LEASE)
def sweep(
    recipe: str,
    grid: dict[str, list[Any]],
    metric: str | None = None,
    random: int | None = None,
    seed: int = 0,
    max_parallel: int | None = None,
) -> Any:
    """Run every combination of `grid` (path below the recipe's block -> values), or `random` of them.

    `metric` sorts the table (the recipe's most important one when not given); `max_parallel` trials run at once
    (params.yaml's when not given). The table, the plot and the best block go to .genpipe/sweeps/.
    """
    log_failures_in_one_line()
    root, request = Path.cwd(), SweepRequest(recipe, grid, random, seed)
    limit, trials = trials_at_once(root, max_parallel), request.trials(root)
    results = run_trials(root, trials, limit, varied=f"train@{recipe}")
    metric = metric_of(metric, [result.metrics.get(recipe, {}) for result in results])
    pairs = zip(trials, results, strict=True)
    rows = [{**trial.settings, **result.row(recipe)} for trial, result in pairs]
    _keep(root, request, sorted_by(rows, metric, is_maximised(metric)), metric)
    require_success(trials, results)
    return Completed(
        message=f"{len(trials)} trials; {request.directory / 'trials.tsv'} has them, the best first"
    )


def _keep(root: Path, request: SweepRequest, rows: list[dict[str, Any]], metric: str) -> None:
    """Write the table; and, where a trial has the metric, the plot and the block of the best."""
    directory = root / request.directory
    keep_table(rows, directory / "trials.tsv", "sweep", f"{request.recipe} by {metric}, the best first")
    known = [row for row in rows if has_value(row, metric)]
    if not known:
        return
    with new_file(directory / "plot.svg") as partial:
        partial.write_text(sweep_plot(known, list(request.grid), metric), encoding="utf-8")
    params = yaml_text.read(root / TRIALS / known[0]["workspace"] / "params.yaml")
    block = {"recipes": {request.recipe: params["recipes"][request.recipe]}}
    with new_file(directory / "best.yaml") as partial:
        partial.write_text(yaml_text.dump(block), encoding="utf-8")
