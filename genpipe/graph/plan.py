"""What a plan is: stages in order, what each waits for, and which are out of date and why. DVC is not imported here."""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import networkx

from genpipe.dependencies import LIBRARIES
from genpipe.errors import BadInput, BadState

ALWAYS = "always changed"  # what DVC says of a stage with always_changed, or without dependencies and outputs
LEAST = {"attempts": 1}  # of the numbers in meta.genpipe; 0 of the others
UPSTREAM = re.compile("upstream .* stale")


@dataclass(frozen=True)
class Needs:
    """`meta.genpipe` of a stage: how it is run; no output depends on it."""

    retries: int = 0
    timeout: float | None = None  # seconds
    cpus: float = 0  # claimed while it runs
    gpus: float = 0
    priority: int = 0  # of the stages that may start, the highest goes first
    attempts: int = 6  # deaths with the very same inputs, over all runs of the flow
    ray: bool = False  # whether it works on Ray, so that a flow can start one cluster for all


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

    @property
    def is_unfinished(self) -> bool:
        """Whether a run would fix it: not where it is stale only because DVC runs it, or one upstream, every time."""
        return any(reason != ALWAYS and not UPSTREAM.fullmatch(reason) for reason in self.reasons)


@dataclass(frozen=True)
class Layout:
    """What a project declares; paths are relative to its root."""

    stages: frozenset[str]
    outs: frozenset[str]  # of stages and of .dvc files
    sources: tuple[str, ...]  # files that stages read, alone or with their folder, and nothing declared makes


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
        """Raise BadState where raw data is missing or was changed: no stage can fix that."""
        if self.problems:
            first, *others = self.problems
            raise BadState(first + (f" (and {len(others)} more)" if others else ""))

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


def in_order(upstream: Mapping[str, list[str]], targets: list[str] | None) -> list[str]:
    """The nodes that the targets (stages or groups; all when none is given) need, each after those it waits for.

    A .dvc file that no stage reads from is left out: nothing waits for its data, which need not be there.
    """
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    for name in sorted(upstream):  # one order, whatever DVC's own is
        graph.add_node(name)
        graph.add_edges_from((name, above) for above in sorted(upstream[name]))
    order = list(networkx.dfs_postorder_nodes(graph))
    if not targets:
        return [name for name in order if graph.in_degree(name) or not is_pin(name)]
    asked = [name for target in targets for name in _matching(target, order)]
    wanted = set(asked).union(*(networkx.descendants(graph, name) for name in asked))
    return [name for name in order if name in wanted]


def is_pin(name: str) -> bool:
    """Whether a node is a .dvc file, not a stage."""
    return name.endswith(".dvc")


def _matching(target: str, names: list[str]) -> list[str]:
    matching = [name for name in names if name == target or name.startswith(f"{target}@")]
    if not matching:
        groups = sorted({name.partition("@")[0] for name in names})
        near = difflib.get_close_matches(target, sorted(names), cutoff=0.4)
        like = f"; like it: {', '.join(near)}" if near else ""
        raise BadInput(f"no stage {target!r} in dvc.yaml{like}; groups of stages: {', '.join(groups)}")
    return matching


def upstream_reason(stale: list[str]) -> list[str]:
    """The reason that stale stages upstream are, if there are any."""
    if not stale:
        return []
    if len(stale) > 2:
        return [f"upstream {stale[0]} and {len(stale) - 1} more are stale"]
    return [f"upstream {' and '.join(stale)} {'is' if len(stale) == 1 else 'are'} stale"]


def code_reasons(changed: list[str]) -> list[str]:
    """The keys that differ in the entry of a stage in artifacts/code.json, in words: files, and versions of libraries."""
    below = f"{LIBRARIES}."
    libraries = [key.removeprefix(below) for key in changed if key.startswith(below)]
    reasons = [f"code {key} changed" for key in changed if key != LIBRARIES and not key.startswith(below)]
    if LIBRARIES in changed:
        reasons.append("libraries changed")  # one side has no versions
    if len(libraries) > 3:
        return [*reasons, f"library {libraries[0]} and {len(libraries) - 1} more changed"]
    return [*reasons, *(f"library {name} changed" for name in libraries)]


def sentence(path: str, change: str) -> str:
    """A change that DVC's status names, in words."""
    words = {"deleted": "is missing", "not in cache": "is not in the cache"}
    return f"{path} {words.get(change, 'changed')}"


def missing_data(path: str) -> str:
    """Raw data is not there."""
    return f"{path}: raw data is missing; fetch it with `genpipe data`"


def pinned_problem(path: str, change: str, pinned_by: str, is_there: bool) -> str:
    """Raw data is not what a .dvc file says; without its cache, as in a fresh clone, DVC says no more than "not in cache"."""
    if change == "deleted" or not is_there:
        return missing_data(path)
    what = (
        f"DVC's cache lacks what {pinned_by} pins"
        if change == "not in cache"
        else f"differs from what {pinned_by} pins"
    )
    return f"{path}: {what}; `genpipe data --force` restores it, `dvc commit {pinned_by}` accepts it"


def missing_file(path: str, stage: str) -> str:
    """A file that a stage needs and none makes is not there."""
    if path.startswith("data/"):
        return missing_data(path)
    missing = f"{path}: {stage} needs it and it is missing"
    if path.startswith("artifacts/"):
        return f"{missing}; no stage makes it: correct the name in params.yaml"
    return f"{missing}; put it there, or correct the name in params.yaml or dvc.yaml"


def unresolved(message: str) -> str:
    """What DVC says of a dvc.yaml that it cannot resolve, with the key of params.yaml that a block lacks."""
    if found := re.search(
        r"'stages\.(\w+)@(.+)\.\w+' in 'dvc\.yaml'.*Could not find 'item\.([\w.]+)'", message
    ):
        return f"params.yaml: the block {found[2]} has no {found[3]}, which the stage {found[1]} of dvc.yaml needs; add it"
    return f"dvc.yaml: {message}"


def needs_of(stage: str, meta: Any) -> Needs:
    """`meta.genpipe` of a stage, checked."""
    values = meta.get("genpipe") or {} if isinstance(meta, Mapping) else {}
    if not isinstance(values, Mapping):
        raise BadInput(
            f"dvc.yaml: {stage}.meta.genpipe: must be keys and values, as {{retries: 1}}, not {values!r}"
        )
    kinds = {field.name: field.type for field in fields(Needs)}
    for key, value in values.items():
        where = f"dvc.yaml: {stage}.meta.genpipe.{key}"
        if key not in kinds:
            raise BadInput(f"{where}: no such key; it knows {', '.join(kinds)}")
        if not _fits(value, kinds[key], LEAST.get(key, 0)):
            form = {bool: "true or false", int: f"a whole number >= {LEAST.get(key, 0)}"}.get(
                kinds[key], "a number >= 0"
            )
            raise BadInput(f"{where}: must be {form}, not {value!r}")
    return Needs(**values)


def _fits(value: Any, kind: Any, least: int) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int if kind is int else int | float) and least <= value < math.inf
