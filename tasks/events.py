"""Events for Prefect's automations and triggers."""

import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.settings import PREFECT_API_URL

from genpipe.errors import Unavailable
from tasks.watching import Change

ARRIVES_WITHIN = 60.0  # seconds; the server writes events down in batches


class NotSent(Unavailable):
    """The server has not got an event."""


def send(change: Change) -> None:
    """Emit genpipe.data.updated and wait until the server has it; it knows the event again when it is sent twice."""
    if PREFECT_API_URL.value() is None:
        raise NotSent("watch: no Prefect server to tell; start one and set PREFECT_API_URL to its address")
    emit_event(
        "genpipe.data.updated",
        {"prefect.resource.id": f"genpipe.data.{Path.cwd().name}"},
        occurred=datetime.fromtimestamp(change.seen_at, UTC),
        payload={"changed": change.names, "state": change.state},
        id=UUID(change.identity),
    )
    deadline = time.monotonic() + ARRIVES_WITHIN
    while not _has_arrived(change.identity):
        if time.monotonic() > deadline:
            raise NotSent(
                f"watch: the server at {PREFECT_API_URL.value()} did not take the event within "
                f"{ARRIVES_WITHIN:g} seconds; the next look sends it again"
            )
        time.sleep(0.5)


def _has_arrived(identity: str) -> bool:
    with get_client(sync_client=True) as client:
        wanted = EventFilter(id=EventIDFilter(id=[UUID(identity)]))
        answer = client.request(
            "POST", "/events/filter", json={"filter": wanted.model_dump(mode="json"), "limit": 1}
        )
        return bool(answer.json()["events"])
