"""dvc.yaml read as a plan: the stages in order, what each waits for, and which are out of date and why.

The only file that imports DVC. Nothing is run and nothing of the project is changed. What is used of DVC beyond
`Repo.status` (`index.graph`, the values of params.yaml in dvc.lock) is not its public interface; tests/test_graph.py
holds it to what is expected here.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import networkx
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo

from genpipe.errors import BadInput


class NotVerified(Exception):
    """Stages are out of date though they were run: one line that names them."""


@dataclass(frozen=True)
class Needs:
    """`meta.genpipe` of a stage: how it is run; no output depends on it."""

    retries: int = 0
    timeout: float | None = None  # seconds
    cpus: int = 0
    gpus: int = 0


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml: what it waits for, and why it is out of date (`reasons` is empty when it is not)."""

    name: str
    upstream: tuple[str, ...]
    reasons: tuple[str, ...]
    needs: Needs

    @property
    def is_stale(self) -> bool:
        """Whether it has to be looked at; DVC may still find that its inputs came out as they were."""
        return bool(self.reasons)


@dataclass(frozen=True)
class Plan:
    """Stages, each after those it waits for, and the raw inputs that are not as they should be."""

    stages: tuple[Stage, ...]
    problems: tuple[str, ...] = ()

    @property
    def stale(self) -> tuple[Stage, ...]:
        """The stages to run, in order."""
        return tuple(stage for stage in self.stages if stage.is_stale)

    def require_inputs(self) -> None:
        """Raise BadInput when raw data is missing or was changed: no stage can mend that."""
        if self.problems:
            first, *others = self.problems
            raise BadInput(first + (f" (and {len(others)} more)" if others else ""))

    def describe(self) -> str:
        """The plan in words: a line for each stage that is out of date."""
        if not self.stale and not self.problems:
            return f"everything is up to date ({len(self.stages)} stages)"
        width = max((len(stage.name) for stage in self.stale), default=0)
        lines = [f"{len(self.stale)} of {len(self.stages)} stages are out of date:"]
        lines += [f"  {stage.name:<{width}}  {'; '.join(stage.reasons)}" for stage in self.stale]
        return "\n".join([*lines, *(f"  cannot run: {problem}" for problem in self.problems)])

    def as_dict(self) -> dict[str, Any]:
        """The plan for programs, ready for JSON."""
        return {
            "stages": [{**asdict(stage), "stale": stage.is_stale} for stage in self.stages],
            "problems": list(self.problems),
        }


def read_plan(root: Path, targets: list[str] | None = None) -> Plan:
    """Read the plan of the project at `root`; with `targets` (stages or groups), of these and all they wait for."""
    with _open(root) as repo:
        graph = repo.index.graph  # an edge points from a stage to one that it needs
        found = [node for node in networkx.dfs_postorder_nodes(graph) if hasattr(node, "addressing")]
        wanted = _with_upstream(graph, found, targets)
        nodes = [node for node in found if node in wanted]
        status = repo.status()  # of all: given targets, DVC parses dvc.yaml once for each
        stages = _stages([node for node in nodes if node.cmd], graph, status)
        return Plan(stages, tuple(_problems(nodes, graph, status)))


def verify(root: Path, targets: list[str] | None = None) -> None:
    """Check that nothing is out of date any more, or raise NotVerified."""
    plan = read_plan(root, targets)
    plan.require_inputs()
    if plan.stale:
        reasons = "; ".join(f"{stage.name} ({', '.join(stage.reasons)})" for stage in plan.stale)
        raise NotVerified(f"after the run these stages are still out of date: {reasons}")


@contextlib.contextmanager
def _open(root: Path) -> Iterator[Repo]:
    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # its warnings and bars are not for our readers
    if not root.is_dir():
        raise BadInput(f"{root}: no such directory; go to the root of the project")
    try:
        with (
            contextlib.chdir(root),
            Repo() as repo,
        ):  # DVC names stages and files relative to the current directory
            if Path(repo.root_dir) != root.resolve():
                raise NotDvcRepoError(str(root))
            yield repo
    except NotDvcRepoError:
        raise BadInput(
            f"{root}: not the root of a DVC project (no .dvc there); go to the root of the project"
        ) from None
    except LockError:
        raise BadInput(
            f"{root}: another DVC command is at work here; run this again when it has ended"
        ) from None
    except DvcException as error:
        raise BadInput(f"dvc.yaml: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    causes = [" ".join(str(error).split())]
    while error.__cause__ is not None:  # the last cause names the place
        error = error.__cause__
        causes.append(" ".join(str(error).split()))
    return ": ".join(dict.fromkeys(cause for cause in causes if cause))


def _with_upstream(graph: Any, nodes: list[Any], targets: list[str] | None) -> set[Any]:
    if not targets:
        return set(nodes)
    names = {node.addressing: node for node in nodes}
    wanted: set[Any] = set()
    for target in targets:
        matching = [node for name, node in names.items() if name == target or name.startswith(f"{target}@")]
        if not matching:
            raise BadInput(f"no stage {target!r} in dvc.yaml; it has: {', '.join(names)}")
        for node in matching:
            wanted |= {node} | networkx.descendants(graph, node)
    return wanted


def _stages(nodes: list[Any], graph: Any, status: dict[str, Any]) -> tuple[Stage, ...]:
    stages: dict[str, Stage] = {}
    for node in nodes:
        upstream = tuple(sorted(above.addressing for above in graph.successors(node) if above.cmd))
        stale = [name for name in upstream if stages[name].is_stale]
        made = {
            str(out) for above in graph.successors(node) if above.addressing in stale for out in above.outs
        }
        entries = status.get(node.addressing, [])
        reasons = (
            ["has never run"]
            if _never_ran(node)
            else [*_reasons(node, entries, made), *_upstream_reason(stale)]
        )
        stages[node.addressing] = Stage(node.addressing, upstream, tuple(reasons), _needs(node))
    return tuple(stages.values())


def _upstream_reason(stale: list[str]) -> list[str]:
    if not stale:
        return []
    if len(stale) > 2:
        return [f"upstream {stale[0]} and {len(stale) - 1} more are stale"]
    return [f"upstream {' and '.join(stale)} {'is' if len(stale) == 1 else 'are'} stale"]


def _reasons(node: Any, entries: list[Any], made: set[str]) -> Iterator[str]:
    for entry in entries:
        if entry == "changed command":
            yield "command changed"
        elif isinstance(entry, str):
            yield entry
        else:
            yield from _dependency_reasons(node, entry.get("changed deps", {}), made)
            yield from (_sentence(path, change) for path, change in entry.get("changed outs", {}).items())


def _never_ran(node: Any) -> bool:
    return bool(node.outs) and not any(out.hash_info for out in node.outs)


def _dependency_reasons(node: Any, changes: dict[str, Any], made: set[str]) -> Iterator[str]:
    parameters = {str(dep): dep for dep in node.deps if hasattr(dep, "read_params")}
    for path, change in changes.items():
        if path in parameters and change != "deleted":
            yield from _parameter_reasons(parameters[path])
        elif not _is_made(path, made):  # the stale stage upstream is the reason then
            yield _sentence(path, change)


def _parameter_reasons(dependency: Any) -> Iterator[str]:
    before, now = dependency.hash_info.value or {}, dependency.read_params()
    for name in dependency.params or now:
        yield from (f"params {path} changed" for path in _differences(before.get(name), now.get(name), name))


def _differences(before: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}")
    elif before != now:
        yield path


def _sentence(path: str, change: str) -> str:
    words = {"deleted": "is missing", "not in cache": "is not in the cache"}
    return f"{path} {words.get(change, 'changed')}"


def _is_made(path: str, outs: Iterable[str]) -> bool:
    return any(path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/") for out in outs)


def _problems(nodes: list[Any], graph: Any, status: dict[str, Any]) -> Iterator[str]:
    """Raw data that is missing or differs from what a .dvc file pins, and other inputs that no stage makes."""
    seen: set[str] = set()
    for node in nodes:
        for entry in status.get(node.addressing, []):
            changes = (
                entry.get("changed deps" if node.cmd else "changed outs", {})
                if isinstance(entry, dict)
                else {}
            )
            made = {str(out) for above in graph.successors(node) for out in above.outs}
            absent = {path: change for path, change in changes.items() if not _is_made(path, made)}
            for path, change in absent.items():
                if path not in seen and (change == "deleted" or not node.cmd):
                    seen.add(path)
                    yield _problem(path, change, node)


def _problem(path: str, change: str, node: Any) -> str:
    if node.cmd and not path.startswith("data/"):
        return f"{path}: {node.addressing} needs it and it is missing; restore it, or take it out of dvc.yaml"
    if change == "deleted":
        return f"{path}: raw data is missing; fetch it with `genpipe data`"
    return (
        f"{path}: differs from what {node.addressing} pins; `genpipe data --force` restores it, "
        f"`dvc commit {node.addressing}` accepts it"
    )


def _needs(node: Any) -> Needs:
    values = (node.meta or {}).get("genpipe", {})
    known = [field.name for field in fields(Needs)]
    for key, value in values.items():
        if key not in known:
            raise BadInput(
                f"dvc.yaml: {node.addressing}.meta.genpipe.{key}: no such key; it knows {', '.join(known)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise BadInput(
                f"dvc.yaml: {node.addressing}.meta.genpipe.{key}: wanted a number >= 0, not {value!r}"
            )
    return Needs(**values)
