"""`python -m flows.retrain`: what is wrong or already done is said before Prefect is imported or a server is started."""

import argparse
import logging
import os
import sys
from pathlib import Path

from genpipe import lease
from genpipe.errors import BadInput
from genpipe.graph import NotVerified, Plan, read_plan
from genpipe.params.project import read_params

LEASE = "retrain"
REPORT = Path("artifacts/report/index.html")  # below the project
PREFECT = {  # what the user has set stays
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine needs more than the default
}


class RunFailed(Exception):
    """Some stages failed: one line a stage."""


def main(argv: list[str] | None = None) -> int:
    """Run the flow here; 0 when all went well, 1 when a stage failed, 2 when the input is at fault."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(Path.cwd(), arguments.targets or None, arguments.max_parallel, arguments.retry_failed)
    except lease.Busy as error:
        return _fail(error, lease.BUSY)
    except BadInput as error:
        return _fail(error, 2)
    except (RunFailed, NotVerified) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where it stopped", 130)


def prepare(root: Path, targets: list[str] | None, max_parallel: int | None) -> tuple[int, Plan]:
    """How many stages may run at once, and the plan; BadInput when either cannot be had or raw data is missing."""
    params = read_params(root)  # all of it is checked before anything is run
    limit = params.cluster.max_parallel if max_parallel is None else max_parallel
    if limit < 1:
        raise BadInput(f"--max-parallel: wanted 1 or more stages at once, not {limit}")
    plan = read_plan(root, targets)
    plan.require_inputs()
    return limit, plan


def _run(root: Path, targets: list[str] | None, max_parallel: int | None, retry_failed: bool) -> int:
    with lease.hold(root, LEASE):
        _, plan = prepare(root, targets, max_parallel)
    print(plan.describe(), flush=True)
    if plan.stale:
        _run_flow(targets, max_parallel, retry_failed)
    if (root / REPORT).exists():
        print(f"open {REPORT}")
    return 0


def _run_flow(targets: list[str] | None, max_parallel: int | None, retry_failed: bool) -> None:
    for name, value in PREFECT.items():
        os.environ.setdefault(name, value)
    from flows.retrain import retrain  # only now: importing it reads the environment, and takes seconds

    retrain(targets, max_parallel, retry_failed)
    logging.getLogger("prefect").setLevel(logging.WARNING)  # its goodbye would follow our last line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain", description="Run every stage that is out of date."
    )
    parser.add_argument(
        "targets", nargs="*", metavar="STAGE", help="only these stages, or groups of them, and what they need"
    )
    parser.add_argument(
        "--max-parallel", type=int, metavar="N", help="stages at once; default: cluster.max_parallel"
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="also stages that died too often with the very same inputs",
    )
    return parser


def _fail(message: object, status: int) -> int:
    print(f"genpipe: {message}", file=sys.stderr)
    return status
