"""Automations on Prefect's server: those of a file in place of those of the same names."""

from collections.abc import Sequence
from typing import Any

from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from genpipe.errors import BadInput, BadState

WATCHED = "genpipe.schedule.watched"  # from this event on, runs of a schedule are missed


def replace(automations: Sequence[dict[str, Any]]) -> None:
    """Create each automation, or update the one of its name; of several with one name, one is kept."""
    _require_server()
    checked = [AutomationCore.model_validate(automation) for automation in automations]
    with get_client(sync_client=True) as client:
        for automation in checked:
            there = client.read_automations_by_name(automation.name)
            for other in there[1:]:
                client.delete_automation(other.id)
            if there:
                client.update_automation(there[0].id, automation)
            else:
                client.create_automation(automation)


def notification_block(slug: str) -> str:
    """The identity of the block TYPE/NAME; BadInput when the server has none, or it sends no messages."""
    _require_server()
    kind, _, name = slug.partition("/")
    if not kind or not name:
        raise BadInput(
            f"--notify: {slug} is not valid; name a block as TYPE/NAME, such as slack-webhook/genpipe"
        )
    with get_client(sync_client=True) as client:
        try:
            block = client.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound:
            raise BadInput(
                f"--notify: the server has no block {slug}; `prefect block ls` lists those it has, docs/flows.md says how to make one"
            ) from None
    if block.block_schema is None or "notify" not in block.block_schema.capabilities:
        raise BadInput(
            f"--notify: the block {slug} sends no messages; use one of a notification type, such as slack-webhook"
        )
    return str(block.id)


def watch_schedules() -> None:
    """Begin to miss runs of each scheduled deployment now, so that a first run that never begins is noticed too."""
    with get_client(sync_client=True) as client:
        scheduled = [
            found for found in client.read_deployments() if any(each.active for each in found.schedules)
        ]
    for deployment in scheduled:
        emit_event(
            WATCHED,
            {"prefect.resource.id": "genpipe.schedule"},
            related=[
                {
                    "prefect.resource.id": f"prefect.deployment.{deployment.id}",
                    "prefect.resource.role": "deployment",
                    "prefect.resource.name": deployment.name,
                }
            ],
        )


def _require_server() -> None:
    if PREFECT_API_URL.value() is None:
        raise BadState(
            "automations: no Prefect server is set; start one and set PREFECT_API_URL to its address"
        )
