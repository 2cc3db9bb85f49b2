"""What a run shows in Prefect: a table of metrics, and what became of each stage."""

from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from genpipe.files import read_json
from genpipe.graph import Plan
from tasks.stages import Outcomes


def show(root: Path, plan: Plan, outcomes: Outcomes, report: Path) -> None:
    """Create the artifacts `metrics` and `stages` of the current run; the latter names the report."""
    create_table_artifact(metrics_table(root), "metrics", "every metric of every recipe")
    create_markdown_artifact(stage_table(plan, outcomes, report), "stages", "what this run did, and why")


def metrics_table(root: Path) -> list[dict[str, Any]]:
    """A row for each metric in artifacts/metrics/RECIPE.json."""
    return [
        {"recipe": path.stem, "metric": metric, "value": value}
        for path in sorted((root / "artifacts" / "metrics").glob("*.json"))
        for metric, value in read_json(path).items()
    ]


def stage_table(plan: Plan, outcomes: Outcomes, report: Path) -> str:
    """Markdown: each stage of the run, what became of it, how long it took and why it was run; then the report."""
    ended = {run.stage: (run.outcome, f"{run.seconds:.1f}") for run in outcomes.runs}
    rows = [
        (stage.name, *ended.get(stage.name, _unfinished(stage.name, outcomes)), "; ".join(stage.reasons))
        for stage in plan.stale
    ]
    lines = [
        "| stage | outcome | seconds | why |",
        "|---|---|---:|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    if report.exists():
        lines += ["", f"Report: `{report}`"]
    return "\n".join(lines)


def _unfinished(name: str, outcomes: Outcomes) -> tuple[str, str]:
    return ("not run" if name in outcomes.not_run else "failed", "")
