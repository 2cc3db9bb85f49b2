"""`python -m flows.retrain`: what is wrong or already done is said before Prefect is imported or a server is started."""

import argparse
from pathlib import Path

from flows.starting import run_flow, status_of
from genpipe import lease
from genpipe.cli.arguments import Once
from genpipe.cores import cores
from genpipe.errors import BadInput
from genpipe.graph import Plan, read_plan
from genpipe.params.project import read_params
from tasks import attempts
from tasks.changes import require_clean
from tasks.publish import is_outstanding
from tasks.times import expectation

LEASE = "retrain"
REPORT = Path("artifacts/report/index.html")  # below the project


def main(argv: list[str] | None = None) -> int:
    """Run the flow here; 0 when all went well, 1 when a stage failed, 2 when the input is at fault."""
    arguments = _parser().parse_args(argv)
    return status_of(lambda: _run(Path.cwd(), arguments))


def targets_of(root: Path, targets: list[str] | None, set_name: str | None) -> list[str] | None:
    """The stages asked for: `targets`, and what judges each recipe of a set of params.yaml; None for all stages.

    Raises BadInput where there is no such set.
    """
    if set_name is None:
        return targets
    return [*(targets or []), *read_params(root).stages_of_set(set_name)]


def prepare(root: Path, targets: list[str] | None, max_parallel: int | None) -> tuple[int, Plan]:
    """How many stages may run at once, and the plan; BadInput when either cannot be had or raw data is missing."""
    params = read_params(root)  # all of it is checked before anything is run
    limit = (params.cluster.max_parallel or cores()) if max_parallel is None else max_parallel
    if limit < 1:
        raise BadInput(f"--max-parallel: must be 1 or more stages at once, not {limit}")
    plan = read_plan(root, targets)
    plan.require_inputs()
    for stage in plan.stages:
        if not stage.is_stale:  # it was finished, even if whoever watched it died
            attempts.forget(root, stage.name)
    return limit, plan


def _run(root: Path, arguments: argparse.Namespace) -> None:
    asked = vars(arguments) | {"targets": arguments.targets or None}
    if arguments.allow_dirty and not arguments.publish:
        raise BadInput("--allow-dirty: valid beside --publish only; without it nothing is committed")
    with lease.hold(root, LEASE):
        targets = targets_of(root, asked["targets"], arguments.set_name)
        limit, plan = prepare(root, targets, arguments.max_parallel)
        if arguments.publish:
            require_clean(root, arguments.allow_dirty)
    print(plan.describe(), flush=True)
    if plan.stale:
        print(expectation(root, plan.stale, limit), flush=True)
    if plan.stale or (arguments.publish and is_outstanding(root, read_params(root).promotion)):
        run_flow("retrain", **asked)
    if (root / REPORT).exists():
        print(f"open {REPORT}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain", description="Run every stage that is out of date."
    )
    parser.add_argument(
        "targets", nargs="*", metavar="STAGE", help="only these stages, or groups of them, and what they need"
    )
    parser.add_argument(
        "--set", dest="set_name", action=Once, metavar="NAME",
        help="only the recipes of that set of params.yaml, besides any STAGE, and what they need",
    )  # fmt: skip
    parser.add_argument(
        "--max-parallel",
        type=int,
        metavar="N",
        help="stages at once; default: cluster.max_parallel, else the number of cores",
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="also stages that died too often with the very same inputs",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="push objects (dvc push), commit dvc.lock and metrics on a branch genpipe/run-…, promote models that pass their rules",
    )
    parser.add_argument("--allow-dirty", action="store_true", help="publish in spite of uncommitted changes")
    return parser
