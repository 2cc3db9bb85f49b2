"""dvc.yaml read as a plan: the stages in order, what each waits for, and which are out of date and why.

Read in process, which takes tenths of a second; and through DVC's command line where DVC's classes have changed.
"""

import sys
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path

from genpipe.errors import BadState, WorkFailed
from genpipe.graph.plan import Layout, Needs, Plan, Stage

__all__ = [
    "Layout",
    "Needs",
    "NotVerified",
    "Plan",
    "Stage",
    "forget_stages",
    "inputs_of",
    "layout",
    "read_plan",
    "verify",
]

DRIFT = (ImportError, AttributeError, TypeError)  # what a changed interface raises


class NotVerified(WorkFailed):
    """Stages are out of date though they were run: one line that names them."""


def read_plan(root: Path, targets: list[str] | None = None) -> Plan:
    """Read the plan of the project at `root`; with `targets` (stages or groups), of these and all they wait for."""
    try:
        from genpipe.graph import in_process

        plan = in_process.read_plan(root, targets)
    except DRIFT as error:
        from genpipe.graph import by_command

        print(
            f"genpipe: DVC {version('dvc')} is not as genpipe knows it ({type(error).__name__}: {error}); "
            "the plan is read through its command line",
            file=sys.stderr,
        )
        plan = by_command.read_plan(root, targets)
    if not plan.stages and not targets:
        raise BadState(f"{root}: no stages (no dvc.yaml, or an empty one); go to the root of the project")
    return plan


def inputs_of(root: Path, name: str) -> str | None:
    """A hash of a stage's command and of all it depends on, as that is now; None when it cannot be computed."""
    try:
        from genpipe.graph import in_process

        return in_process.inputs_of(root, name)
    except DRIFT:
        return None


def layout(root: Path) -> Layout:
    """What the project at `root` declares, and the files that its stages read and nothing declared makes."""
    try:
        from genpipe.graph import in_process

        return in_process.layout(root)
    except DRIFT as error:
        raise _drifted(error) from None


def forget_stages(root: Path, names: Collection[str]) -> None:
    """Take stages out of dvc.lock."""
    try:
        from genpipe.graph import in_process

        in_process.forget_stages(root, names)
    except DRIFT as error:
        raise _drifted(error) from None


def _drifted(error: Exception) -> BadState:
    return BadState(
        f"DVC {version('dvc')} is not as genpipe knows it ({type(error).__name__}: {error}); install the version in "
        "requirements.lock"
    )


def verify(root: Path, targets: list[str] | None = None) -> None:
    """Check that nothing is out of date any more but what DVC always runs, or raise NotVerified."""
    plan = read_plan(root, targets)
    plan.require_inputs()
    stale = [stage for stage in plan.stale if stage.is_unfinished]
    if stale:
        reasons = "; ".join(f"{stage.name} ({', '.join(stage.reasons)})" for stage in stale)
        raise NotVerified(f"after the run these stages are still out of date: {reasons}")
