"""Give Prefect's server the automations of deploy/prefect: what it does about runs that crash or hang, whom it notifies.

    python -m flows.automations                                   runs that crash or hang
    python -m flows.automations --notify slack-webhook/genpipe    notifications too, sent by that block

The same command brings them up to date: automations of the same names are replaced, others are left alone.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from flows.starting import prepare_prefect, status_of
from genpipe.errors import BadState, Unavailable

AUTOMATIONS, NOTIFICATIONS = (Path("deploy/prefect") / f"{name}.yaml" for name in ("automations", "notifications"))  # fmt: skip
BLOCK = "BLOCK"  # the word that stands for the user's block in NOTIFICATIONS


def main(argv: list[str] | None = None) -> int:
    """`python -m flows.automations`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.automations", description="Give Prefect's server the automations of deploy/prefect."
    )  # fmt: skip
    parser.add_argument(
        "--notify",
        metavar="TYPE/NAME",
        help="the notification block that sends messages; default: no messages",
    )
    arguments = parser.parse_args(argv)
    return status_of(lambda: _give(Path.cwd(), arguments.notify))


def _give(root: Path, block: str | None) -> None:
    wanted = _read(root / AUTOMATIONS)
    if block:
        wanted += _read(root / NOTIFICATIONS)
    prepare_prefect()
    from tasks import automations  # imports Prefect, which takes seconds

    try:
        identity = automations.notification_block(block) if block else ""
        automations.replace([_with_block(automation, identity) for automation in wanted])
        automations.watch_schedules()
    except httpx.TransportError as error:
        raise Unavailable(f"automations: no Prefect server answers ({error}); start it: prefect server start") from None  # fmt: skip
    for automation in wanted:
        print(f"{automation['name']}: {automation['description']}")


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))["automations"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise BadState(f"{path}: not a file of automations ({error}); git checkout {path}") from None


def _with_block(automation: dict[str, Any], block: str) -> dict[str, Any]:
    """The automation, with the block's identity where its actions name BLOCK."""
    actions = [
        {**action, "block_document_id": block} if action.get("block_document_id") == BLOCK else action
        for action in automation["actions"]
    ]
    return {**automation, "actions": actions}


if __name__ == "__main__":
    sys.exit(main())
