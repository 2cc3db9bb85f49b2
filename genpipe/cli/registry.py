"""The registry of models: what there is, where it came from, what is in production."""

import argparse
import json
from pathlib import Path

from genpipe.cli.arguments import Commands
from genpipe.errors import BadInput


def add(commands: Commands) -> None:
    """Add the commands about versions of models."""
    models = commands.add_parser("models", help="list the versions of models, their stages and metrics")
    models.add_argument("model", nargs="?", metavar="MODEL")
    models.add_argument("--json", action="store_true", help="for programs")
    models.set_defaults(run=_models)

    trace = commands.add_parser(
        "trace",
        help="where a model came from: data, code, params, parents, machine and libraries",
        epilog="examples: genpipe trace nice (the workspace's), genpipe trace nice@prod, genpipe trace nice@v0.0.2",
    )
    trace.add_argument("model", metavar="MODEL[@VERSION]")
    trace.add_argument("--json", action="store_true", help="for programs, with every package")
    trace.set_defaults(run=_trace)

    rollback = commands.add_parser("rollback", help="put the version before into production again")
    rollback.add_argument("model", metavar="MODEL")
    rollback.add_argument("--to", metavar="VERSION", help="another version than the one before, as v0.0.1")
    rollback.set_defaults(run=_rollback)

    pull = commands.add_parser(
        "pull",
        help="fetch the weights of a version, with its card",
        epilog="example: genpipe pull nice@prod --out nice",
    )
    pull.add_argument("model", metavar="MODEL@VERSION")
    pull.add_argument("--out", type=Path, required=True, metavar="DIR", help="new, empty, or pulled before")
    pull.set_defaults(run=_pull)


def _models(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.registry.listing import describe, rows

    found = rows(root, arguments.model)
    print(json.dumps(found, ensure_ascii=False, indent=2) if arguments.json else describe(found))


def _trace(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.registry import trace

    lineage = trace.trace(root, *trace.split_name(arguments.model))
    if arguments.json:
        print(json.dumps(trace.as_dict(lineage), ensure_ascii=False, indent=2))
    else:
        print(trace.describe(root, lineage))


def _rollback(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe import lease
    from genpipe.git import remote_of
    from genpipe.registry.promotion import rollback
    from genpipe.registry.trace import split_name

    name, wanted = split_name(arguments.model)
    if wanted is not None:
        raise BadInput(
            f"name MODEL alone, not {arguments.model!r}; run genpipe rollback {name} --to {wanted}"
        )
    with lease.hold(root, "registry"):
        before, now = rollback(root, name, arguments.to, remote_of(root))
    print(f"{now.tag} is in production again, in place of {before.name}")


def _pull(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.registry.pull import pull
    from genpipe.registry.tags import read_model
    from genpipe.registry.trace import split_name

    name, wanted = split_name(arguments.model)
    if wanted is None:
        raise BadInput(
            f"name the model as MODEL@VERSION or MODEL@STAGE, as in {name}@prod, not {arguments.model!r}"
        )
    version = read_model(root, name).named(wanted)
    pull(root, name, version.commit, arguments.out)
    print(f"{version.tag} is in {arguments.out}")
