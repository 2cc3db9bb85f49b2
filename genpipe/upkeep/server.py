"""What the doctor asks Prefect's server: whether it is there, knows the deployments, starts their runs, and none is stuck."""

import importlib.metadata
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import yaml

from genpipe.upkeep.finding import LOCK, Finding, few

PATIENCE = 1.5  # seconds for the server to answer
DEPLOYED = timedelta(minutes=1)  # the scheduler may take so long to see a deployment
LATE = timedelta(minutes=15)
STUCK = timedelta(minutes=15)  # the automations act after ten
AT_WORK = [
    "PENDING",
    "RUNNING",
    "CANCELLING",
]  # states in which a run has a place in the limit of its deployment
AUTOMATIONS = Path("deploy/prefect/automations.yaml")
STORAGE = "prefect.server.concurrency.lease_storage"


def prefect(root: Path) -> Iterator[Finding]:
    """Findings about the server that is set, if one is."""
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        yield Finding("Prefect", "ok", "PREFECT_API_URL is not set; a flow starts a server of its own")
        return
    name, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    try:
        with httpx.Client(base_url=address, auth=(name, password), timeout=PATIENCE) as client:
            answer = client.get("/admin/version")
            yield from _server(root, client, address, answer)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: what answers is no Prefect
        remedy = "start it: prefect server start; or unset PREFECT_API_URL"
        yield Finding("Prefect", "missing", f"no server answers at {address} ({error})", remedy)


def _server(root: Path, client: httpx.Client, address: str, answer: httpx.Response) -> Iterator[Finding]:
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        remedy = "export PREFECT_API_AUTH_STRING=USER:PASSWORD"
        yield Finding("Prefect", "missing", f"{address} wants another password", remedy)
        return
    answer.raise_for_status()
    here, there = importlib.metadata.version("prefect"), answer.json()
    if here != there:
        yield Finding("Prefect", "warning", f"version {there} at {address}, {here} here", LOCK)
    else:
        yield Finding("Prefect", "ok", f"version {there} at {address}")
    client.headers.update(_csrf(client))
    yield from _leases(client)
    yield from _automations(root, client)
    yield from _deployments(root, client)


def _csrf(client: httpx.Client) -> dict[str, str]:
    """The headers without which a server with CSRF protection answers no POST; none where it has no protection."""
    name = str(uuid4())
    answer = client.get("/csrf-token", params={"client": name})
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        return {}
    return {"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": _ask(answer)["token"]}


def _leases(client: httpx.Client) -> Iterator[Finding]:
    if _ask(client.get("/admin/settings"))["server"]["concurrency"]["lease_storage"] == f"{STORAGE}.memory":
        remedy = (
            f"start it with PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE={STORAGE}.filesystem, or in the project"
        )
        yield Finding("leases", "warning", "in the server's memory: a restart ends the running flow", remedy)


def _automations(root: Path, client: httpx.Client) -> Iterator[Finding]:
    if not (root / AUTOMATIONS).exists():
        return
    wanted = yaml.safe_load((root / AUTOMATIONS).read_text(encoding="utf-8"))["automations"]
    there = {found["name"] for found in _ask(client.post("/automations/filter", json={}))}
    absent = [automation["name"] for automation in wanted if automation["name"] not in there]
    if absent:
        remedy = "python -m flows.automations"
        yield Finding("automations", "warning", f"the server has no {few(absent)}", remedy)
    elif not any(name.startswith("genpipe-notify-") for name in there):
        remedy = "python -m flows.automations --notify TYPE/NAME"
        yield Finding("automations", "warning", "nobody is notified when a run fails or does not begin", remedy)  # fmt: skip
    else:
        yield Finding("automations", "ok", f"all {len(wanted)} of {AUTOMATIONS.name}, and notifications")


def _deployments(root: Path, client: httpx.Client) -> Iterator[Finding]:
    try:
        wanted = deployments_of(root)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        yield Finding("deployments", "warning", "prefect.yaml cannot be read", "git checkout prefect.yaml")
        return
    answers = {name: client.get(f"/deployments/name/{name}") for name in wanted}
    absent = [name for name, answer in answers.items() if answer.status_code == httpx.codes.NOT_FOUND]
    if absent:
        remedy = "prefect --no-prompt deploy --all"
        yield Finding("deployments", "warning", f"the server has no {few(absent)}", remedy)
    elif wanted:
        yield Finding("deployments", "ok", f"all {len(wanted)} of prefect.yaml")
    there = {name: _ask(answer) for name, answer in answers.items() if name not in absent}
    yield from _schedules(client, there)
    yield from _stuck(client, there)


def _schedules(client: httpx.Client, deployments: dict[str, Any]) -> Iterator[Finding]:
    due = {
        name: _next_start(client, deployment["id"])
        for name, deployment in deployments.items()
        if _is_scheduled(deployment)
    }
    silent = [name for name, start in due.items() if start is None]
    late = [name for name, start in due.items() if start and start < _now() - LATE]
    if silent:
        remedy = f"its log says why; the packages must be those of requirements.lock: {LOCK}"
        yield Finding("schedules", "missing", f"the server schedules no run of {few(silent)}", remedy)
    elif late:
        remedy = "prefect worker start --pool local"
        yield Finding("schedules", "missing", f"no worker begins the runs of {few(late)}, which are overdue", remedy)  # fmt: skip
    elif due:
        first = min(start for start in due.values() if start)
        yield Finding("schedules", "ok", f"the next run is due at {first:%Y-%m-%d %H:%M} UTC")


def _is_scheduled(deployment: dict[str, Any]) -> bool:
    is_active = not deployment["paused"] and any(each["active"] for each in deployment["schedules"])
    return is_active and _time(deployment["updated"]) < _now() - DEPLOYED


def _next_start(client: httpx.Client, deployment: str) -> datetime | None:
    """When the first run that waits was or is to begin; None where none waits."""
    runs = _runs(client, deployment, ["SCHEDULED"], limit=1, sort="EXPECTED_START_TIME_ASC")
    return _time(runs[0]["expected_start_time"]) if runs else None


def _stuck(client: httpx.Client, deployments: dict[str, Any]) -> Iterator[Finding]:
    stuck, taken = [], []
    for deployment in deployments.values():
        at_work = _runs(client, deployment["id"], AT_WORK)
        waiting = [run for run in at_work if run["state_type"] != "RUNNING"]
        stuck += [run["id"] for run in waiting if _time(run["state"]["timestamp"]) < _now() - STUCK]
        # asked again: a run may have ended since
        if (
            not at_work
            and _is_full(deployment)
            and _is_full(_ask(client.get(f"/deployments/{deployment['id']}")))
        ):
            taken.append(deployment["global_concurrency_limit"]["name"])
    if stuck:
        remedy = f"prefect flow-run delete {stuck[0]}"
        yield Finding("runs", "missing", f"{len(stuck)} never began, or never ended, and may keep others out", remedy)  # fmt: skip
    if taken:
        remedy = f"prefect global-concurrency-limit update '{taken[0]}' --active-slots 0"
        yield Finding("limits", "missing", f"full though no run is at work: {few(taken)}", remedy)


def _is_full(deployment: dict[str, Any]) -> bool:
    limit = deployment["global_concurrency_limit"]
    return bool(limit) and limit["active_slots"] >= limit["limit"]


def _runs(client: httpx.Client, deployment: str, states: list[str], **more: Any) -> list[dict[str, Any]]:
    wanted = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": states}}},
    }
    return _ask(client.post("/flow_runs/filter", json={**wanted, **more}))


def _ask(answer: httpx.Response) -> Any:
    answer.raise_for_status()
    return answer.json()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _now() -> datetime:
    return datetime.now(UTC)


def deployments_of(root: Path) -> list[str]:
    """FLOW/NAME of each deployment of prefect.yaml; a flow is named as its function."""
    path = root / "prefect.yaml"
    if not path.exists():
        return []
    deployments = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    flows = [deployment["entrypoint"].rpartition(":")[2].replace("_", "-") for deployment in deployments]
    return [f"{flow}/{deployment['name']}" for flow, deployment in zip(flows, deployments, strict=True)]
