"""What shows and changes nothing else."""

import argparse
import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

from genpipe.cli.arguments import Commands


def add(commands: Commands) -> None:
    """What shows and changes nothing else."""
    report = commands.add_parser(
        "report",
        help="write artifacts/report/index.html, one page that needs no network, from what stages have made",
    )
    report.set_defaults(run=_report)

    code = commands.add_parser(
        "code", help="write artifacts/code.json: hashes of the code that each stage imports"
    )
    code.set_defaults(run=_code)

    recipes = commands.add_parser("recipes", help="list the models and what each can do")
    recipes.set_defaults(run=_recipes)

    plan = commands.add_parser("plan", help="what is out of date, and why; runs nothing")
    plan.add_argument(
        "targets", nargs="*", metavar="STAGE", help="only these, or groups of them, and what they need"
    )
    plan.add_argument("--json", action="store_true", help="for programs")
    plan.set_defaults(run=_plan)


def _report(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.params.project import read_params
    from genpipe.report.page import write_report

    write_report(root, read_params(root))


def _code(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.dependencies import write_code

    write_code(root)


def _recipes(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe import experiment

    print(experiment.describe_recipes())


def _plan(root: Path, arguments: argparse.Namespace) -> None:
    import json

    with _without_garbage_collection():
        from genpipe.graph import read_plan
        from genpipe.params.project import read_params

        plan = read_plan(root, arguments.targets)
        read_params(root)  # what is not valid there is said now, not after hours
        print(json.dumps(plan.as_dict(), ensure_ascii=False, indent=2) if arguments.json else plan.describe())


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Modules and parsed YAML stay until the end; to look for garbage among them, then and before, took a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
