"""A plan read through DVC's command line: slower and with coarser reasons, but it outlives a change of DVC's classes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genpipe import yaml_text
from genpipe.dvc_command import DvcFailed, dvc
from genpipe.errors import BadInput, BadState
from genpipe.graph.plan import (
    Needs,
    Plan,
    Stage,
    in_order,
    is_pin,
    missing_file,
    needs_of,
    pinned_problem,
    sentence,
    unresolved,
    upstream_reason,
)

NODE = re.compile(r'"([^"]+)";?')
EDGE = re.compile(r'"([^"]+)" -> "([^"]+)";?')  # from a stage to one that needs it


def read_plan(root: Path, targets: list[str] | None = None) -> Plan:
    """Read the plan of the project at `root`; with `targets` (stages or groups), of these and all they wait for."""
    if not (root / ".dvc").is_dir():
        raise BadState(
            f"{root}: not the root of a DVC project (no .dvc there); go to the root of the project"
        )
    upstream = _upstream(_dvc(root, "dag", "--dot"))
    wanted = in_order(upstream, targets)
    status = json.loads(_dvc(root, "status", "--json"))
    stages: dict[str, Stage] = {}
    for name in wanted:
        if not is_pin(name):
            above = tuple(sorted(other for other in upstream[name] if not is_pin(other)))
            stale = [other for other in above if stages[other].is_stale]
            reasons = tuple(_reasons(root, name, status.get(name, []), stale))
            stages[name] = Stage(name, above, reasons, _needs(root, name))
    return Plan(tuple(stages.values()), tuple(_problems(root, wanted, upstream, status, stages)))


def _dvc(root: Path, *words: str) -> str:
    try:
        return dvc(root, *words)
    except DvcFailed as error:
        if "dvc.yaml" in str(error):
            raise BadInput(unresolved(str(error))) from None
        raise


def _upstream(dot: str) -> dict[str, list[str]]:
    upstream: dict[str, list[str]] = {}
    for line in map(str.strip, dot.splitlines()):
        if edge := EDGE.fullmatch(line):
            upstream.setdefault(edge[2], []).append(edge[1])
        elif node := NODE.fullmatch(line):
            upstream.setdefault(node[1], [])
    return upstream


def _reasons(root: Path, name: str, entries: list[Any], stale: list[str]) -> Iterator[str]:
    if name not in _read(root / "dvc.lock").get("stages", {}):
        yield "has never run"
        return
    for entry in entries:
        if isinstance(entry, str):
            yield "command changed" if entry == "changed command" else entry
            continue
        for path, change in [*entry.get("changed deps", {}).items(), *entry.get("changed outs", {}).items()]:
            if isinstance(change, dict):
                yield from (f"params {key} changed" for key in change)
            else:
                yield sentence(path, change)
    yield from upstream_reason(stale)


def _problems(
    root: Path,
    wanted: list[str],
    upstream: dict[str, list[str]],
    status: dict[str, Any],
    stages: dict[str, Stage],
) -> Iterator[str]:
    """Raw data that is not as pinned, and what no stage makes; a stale stage upstream may make what is missing."""
    seen: set[str] = set()
    for name in wanted:
        entries = [entry for entry in status.get(name, []) if isinstance(entry, dict)]
        if is_pin(name):
            for path, change in (item for entry in entries for item in entry.get("changed outs", {}).items()):
                yield pinned_problem(path, change, name, (root / path).exists())
        elif not any(stages[above].is_stale for above in stages[name].upstream) and not any(
            is_pin(above) and above in status for above in upstream[name]
        ):
            changes = [item for entry in entries for item in entry.get("changed deps", {}).items()]
            missing = [path for path, change in changes if change == "deleted" and path not in seen]
            seen.update(missing)
            yield from (missing_file(path, name) for path in missing)


def _needs(root: Path, name: str) -> Needs:
    stage = _read(root / "dvc.yaml").get("stages", {}).get(name.partition("@")[0], {})
    return needs_of(name, stage.get("do", stage).get("meta"))


def _read(path: Path) -> dict[str, Any]:
    return yaml_text.read(path) or {} if path.exists() else {}
