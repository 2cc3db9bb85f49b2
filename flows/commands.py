"""The commands of the flows beside retrain: what is wrong or already done is said before Prefect is imported."""

import argparse
import sys
import threading
import time
from pathlib import Path
from typing import Any

from flows.asking import (
    TRIALS_LEASE,
    WATCH_LEASE,
    BackfillRequest,
    SweepRequest,
    corpus_targets,
    trials_at_once,
)
from flows.direct import LEASE, prepare
from flows.starting import prepare_prefect, run_flow, status_of
from genpipe import lease
from genpipe.errors import BadInput, GenpipeError
from tasks.failing import RunFailed
from tasks.judging import JUDGED, require_data, versions
from tasks.sweeping import read_settings
from tasks.times import expectation
from tasks.watching import announce, look


def corpus_main(argv: list[str] | None = None) -> int:
    """`python -m flows.corpus`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.corpus", description="Bring counts and vocabularies up to date."
    )
    parser.add_argument("names", nargs="*", metavar="CORPUS", help="only these corpora of params.yaml")
    _add_max_parallel(parser, "stages")
    arguments = parser.parse_args(argv)
    return status_of(lambda: _corpus(Path.cwd(), arguments))


def sweep_main(argv: list[str] | None = None) -> int:
    """`python -m flows.sweep`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.sweep",
        description="Try values of params.yaml for one recipe; artifacts/ is left alone.",
        epilog="example: python -m flows.sweep nice --set train.solvers.nll.lr=1e-3,2e-3 --set train.steps=600,1200",
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument(
        "--set", action="append", required=True, metavar="PATH=VALUE,VALUE", dest="settings",
        help="values to try at a path below recipes.RECIPE; may be repeated, then all combinations are tried",
    )  # fmt: skip
    parser.add_argument("--random", type=int, metavar="N", help="only N combinations, drawn at random")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="of that draw; default: 0")
    parser.add_argument("--metric", metavar="NAME", help="what sorts the table; default: the recipe's first")
    _add_max_parallel(parser, "trials")
    arguments = parser.parse_args(argv)
    return status_of(lambda: _sweep(Path.cwd(), arguments))


def backfill_main(argv: list[str] | None = None) -> int:
    """`python -m flows.backfill`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.backfill",
        description="Run the current code and parameters on the raw data of other revisions; artifacts/ is left alone.",
        epilog="example: python -m flows.backfill --revisions v1 v2 HEAD --targets evaluate",
    )
    parser.add_argument(
        "--revisions", nargs="+", required=True, metavar="REVISION", help="commits, tags or branches of Git"
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="STAGE",
        help="only these stages, or groups of them, and what they need",
    )
    _add_max_parallel(parser, "revisions")
    arguments = parser.parse_args(argv)
    return status_of(lambda: _backfill(Path.cwd(), arguments))


def evaluate_main(argv: list[str] | None = None) -> int:
    """`python -m flows.evaluate`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.evaluate",
        description="Judge registered models on the current data set; artifacts/ is left alone.",
        epilog="example: python -m flows.evaluate nice@prod couplet",
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL[@VERSION]",
        help="a model, one of its versions, or one of its stages as in nice@prod; default: all there are",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    return status_of(lambda: _evaluate(Path.cwd(), arguments.models))


def watch_main(argv: list[str] | None = None) -> int:
    """`python -m flows.watch`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.watch", description="Tell Prefect when the raw data has changed."
    )
    parser.add_argument(
        "--every",
        type=float,
        metavar="SECONDS",
        help="look again and again, until it is ended; default: look once",
    )
    arguments = parser.parse_args(argv)
    return status_of(lambda: _watch(Path.cwd(), arguments.every))


def _add_max_parallel(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--max-parallel",
        type=int,
        metavar="N",
        help=f"{what} at once; default: cluster.max_parallel, else the cores",
    )


def _corpus(root: Path, arguments: argparse.Namespace) -> None:
    with lease.hold(root, LEASE):
        limit, plan = prepare(root, corpus_targets(root, arguments.names), arguments.max_parallel)
    print(plan.describe(), flush=True)
    if plan.stale:
        print(expectation(root, plan.stale, limit), flush=True)
        run_flow("corpus", names=arguments.names, max_parallel=arguments.max_parallel)


def _sweep(root: Path, arguments: argparse.Namespace) -> None:
    grid = read_settings(arguments.settings)
    request = SweepRequest(arguments.recipe, grid, arguments.random, arguments.seed)
    with lease.hold(root, TRIALS_LEASE):
        trials_at_once(root, arguments.max_parallel)
        request.trials(root)
    asked = {
        name: getattr(arguments, name) for name in ("recipe", "metric", "random", "seed", "max_parallel")
    }
    _run_and_show(root / request.directory, ("trials.tsv", "best.yaml"), "sweep", grid=grid, **asked)


def _backfill(root: Path, arguments: argparse.Namespace) -> None:
    request = BackfillRequest(arguments.revisions, arguments.targets)
    with lease.hold(root, TRIALS_LEASE):
        trials_at_once(root, arguments.max_parallel)
        request.trials(root)
    asked = {name: getattr(arguments, name) for name in ("revisions", "targets", "max_parallel")}
    _run_and_show(root / request.directory, ("revisions.tsv",), "backfill", **asked)


def _evaluate(root: Path, models: list[str]) -> None:
    with lease.hold(root, LEASE):
        for recipe in sorted({version.model for version in versions(root, models)}):
            require_data(root, recipe)
    _run_and_show(root / JUDGED, ("models.tsv",), "evaluate", models=models)


def _watch(root: Path, every: float | None) -> None:
    if every is not None and not 0 < every <= threading.TIMEOUT_MAX:
        raise BadInput(
            f"--every: must be more than 0 and at most {threading.TIMEOUT_MAX:.0f} seconds, not {every:g}"
        )
    with lease.hold(root, WATCH_LEASE):
        _look_once(root)
        while every is not None:
            time.sleep(every)
            _look_again(root)


def _look_once(root: Path) -> None:
    change = look(root)
    if change is None:
        return
    prepare_prefect()
    from tasks.events import send  # imports Prefect, which takes seconds

    announce(root, change, send)
    print(f"announced: {', '.join(change.names)}", flush=True)


def _look_again(root: Path) -> None:
    """A watcher goes on when the server is away or params.yaml is being edited: the next look sees the same change."""
    try:
        _look_once(root)
    except (GenpipeError, OSError) as error:
        print(f"genpipe: {error}", file=sys.stderr, flush=True)


def _run_and_show(directory: Path, names: tuple[str, ...], flow: str, **parameters: Any) -> None:
    """Run a flow and print what it kept, also where some of its trials failed."""
    try:
        run_flow(flow, **parameters)
    except RunFailed:
        _show(directory, names)
        raise
    _show(directory, names)


def _show(directory: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (directory / name).exists():
            print((directory / name).read_text(encoding="utf-8"))
    print(f"kept in {directory.relative_to(Path.cwd())}")
