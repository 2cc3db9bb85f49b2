"""What shows and changes nothing else."""

import argparse
import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

from genpipe.cli.arguments import Commands, Once


def add(commands: Commands) -> None:
    """What shows and changes nothing else."""
    report = commands.add_parser(
        "report",
        help="write artifacts/report/index.html, one page that needs no network, from what stages have made",
    )
    report.set_defaults(run=_report)

    results = commands.add_parser(
        "results",
        help="print the metrics of recipes as a Markdown table, or write the tables of docs/ anew",
        description="Print the metrics of recipes as a Markdown table, with mean and spread where recipes differ in their seed alone; "
        "or, with --write, write the tables between the marks of docs/results.md and docs/models/*.md anew.",
        epilog="examples: genpipe results --set quick; genpipe results --metrics frechet_classifier; genpipe results --write",
    )
    results.add_argument(
        "--set", action=Once, metavar="SET", help="only the recipes of this set of params.yaml"
    )
    results.add_argument("--metrics", metavar="NAME,NAME", help="a line a recipe, with these metrics")
    results.add_argument("--write", action="store_true", help="write the tables of docs/ instead")
    results.set_defaults(run=_results)

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
    plan.add_argument(
        "--set",
        dest="set_name",
        action=Once,
        metavar="NAME",
        help="what `python -m flows.retrain --set NAME` would run",
    )
    plan.add_argument("--json", action="store_true", help="for programs")
    plan.set_defaults(run=_plan)


def _report(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.params.project import read_params
    from genpipe.report.page import write_report

    write_report(root, read_params(root))


def _results(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.errors import BadInput
    from genpipe.params.project import read_params
    from genpipe.report.results import table, write_pages

    params, asked = read_params(root), {"set": arguments.set, "metrics": arguments.metrics}
    options = {name: value for name, value in asked.items() if value}
    if not arguments.write:
        print("\n".join(table(root, params, options, "genpipe results")))
        return
    if options:
        raise BadInput(f"--write writes what the marks of docs/ say; leave --{min(options)} out")
    for path in (changed := write_pages(root, params)):
        print(f"wrote {path}")
    if not changed:
        print(f"{root / 'docs'}: all tables are those of artifacts/metrics")


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

        of_set = read_params(root).stages_of_set(arguments.set_name) if arguments.set_name else []
        plan = read_plan(root, [*arguments.targets, *of_set])
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
