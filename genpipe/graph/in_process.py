"""A plan read in process, through DVC's own classes; the only file that imports DVC.

Nothing is run and nothing of the project is changed. What is used of DVC beyond `Repo.status` (the lock, the index, the
dependencies' hashes) is not its public interface; tests/test_graph.py holds it to what is expected here.
"""

import contextlib
import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dvc.dependency import param
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

from genpipe import lease
from genpipe.dependencies import CODE, NONE, NOTHING, code_of
from genpipe.dvc_command import private_state
from genpipe.errors import BadInput, BadState, Busy
from genpipe.files import new_file
from genpipe.graph.plan import (
    Layout,
    Plan,
    Stage,
    code_reasons,
    in_order,
    missing_file,
    needs_of,
    pinned_problem,
    sentence,
    unresolved,
    upstream_reason,
)

T = TypeVar("T")
MISSING = object()
PATIENCE = 15.0  # seconds to wait for DVC's lock; DVC itself tries for three


class Locked(Busy):
    """Another DVC command holds the lock of the project."""


def read_plan(root: Path, targets: list[str] | None = None) -> Plan:
    """Read the plan of the project at `root`; with `targets` (stages or groups), of these and all they wait for."""
    return _patiently(lambda: _read_plan(root, targets))


def _patiently(look: Callable[[], T]) -> T:
    """What `look` finds, again and again where DVC's lock is held: maybe by what a killed run leaves behind, which is about to end."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return look()
        except Locked:
            if time.monotonic() > give_up:
                raise


def _read_plan(root: Path, targets: list[str] | None) -> Plan:
    # unlocked, DVC reads dvc.yaml anew each time
    with _parameters_read_once(), _open(root) as repo, lock_repo(repo):
        graph = repo.index.graph  # an edge points from a stage to one that it needs
        nodes = {node.addressing: node for node in graph if hasattr(node, "addressing")}
        upstream = {
            name: [above.addressing for above in graph.successors(node)] for name, node in nodes.items()
        }
        wanted = [nodes[name] for name in in_order(upstream, targets)]
        status = repo.status()  # of all: given targets, DVC parses dvc.yaml once for each
        stages = _stages([node for node in wanted if node.cmd], graph, status)
        return Plan(stages, tuple(_problems(wanted, graph, status)))


def inputs_of(root: Path, name: str) -> str | None:
    """A hash of all that decides what the stage makes: its command, and what it depends on as that is now.

    None when it cannot be computed, as while another command holds DVC's lock.
    """
    with contextlib.suppress(DvcException), Repo(str(root), config=_private(root)) as repo, lock_repo(repo):
        for node in repo.index.stages:
            if getattr(node, "name", None) == name:
                inputs = {str(dep.fs_path): dep.get_hash().value for dep in node.deps if dep.exists}
                content = json.dumps([str(node.cmd), inputs], sort_keys=True, default=str)
                return hashlib.sha256(content.encode()).hexdigest()
    return None


def layout(root: Path) -> Layout:
    """What the project at `root` declares, and the files below dependencies that are no part of an output.

    What .dvcignore names is not part of a dependency.
    """
    return _patiently(lambda: _layout(root))


def _layout(root: Path) -> Layout:
    with _parameters_read_once(), _open(root) as repo, lock_repo(repo):
        nodes = repo.index.stages
        outs = {Path(out.fs_path) for node in nodes for out in node.outs}
        read = {dep.fs_path: dep for node in nodes for dep in node.deps if dep.is_in_repo}
        found = {path for dep in read.values() for path in _files(dep, outs)}
        top = Path(repo.root_dir)
        return Layout(
            frozenset(node.addressing for node in nodes if node.cmd),
            frozenset(path.relative_to(top).as_posix() for path in outs),
            tuple(sorted(path.relative_to(top).as_posix() for path in found)),
        )


def _files(dependency: Any, outs: set[Path]) -> Iterator[Path]:
    """The files of a dependency that are in no output."""
    path = Path(dependency.fs_path)
    if not outs.isdisjoint((path, *path.parents)):
        return
    if path.is_file():
        yield path
    for file in map(Path, dependency.repo.dvcignore.find(dependency.fs, str(path))):
        if outs.isdisjoint((file, *file.parents)):
            yield file


def forget_stages(root: Path, names: Collection[str]) -> None:
    """Take stages out of dvc.lock, whole or not at all."""
    with _open(root) as repo, lock_repo(repo):
        path = root / "dvc.lock"
        lock = parse_yaml_for_update(path.read_text(encoding="utf-8"), str(path))
        for name in names:
            lock["stages"].pop(name, None)
        with new_file(path) as partial:
            partial.write_text(dumps_yaml(lock), encoding="utf-8")


@contextlib.contextmanager
def _parameters_read_once() -> Iterator[None]:
    """params.yaml is a dependency of most stages, and DVC parses it anew for each of them, and walks through all of it for each key.

    artifacts/code.json is read as `genpipe code` would write it now: else all stages would wait for that one.
    """
    load_path, read_param_file = param.load_path, param.read_param_file

    @functools.cache
    def load(path: str, *others: Any) -> Any:
        if Path(path).match(str(CODE)):
            return code_of(Path(path).absolute().parents[1])
        return load_path(path, *others)

    def read(fs: Any, path: str, keys: list[str] | None = None, flatten: bool = False, **more: Any) -> Any:
        if not keys or not flatten or more:
            return read_param_file(fs, path, keys, flatten, **more)
        found = {key: _value(load(path, fs), key) for key in keys}
        return {key: value for key, value in found.items() if value is not MISSING}

    dependency: Any = param.ParamsDependency
    is_there: Any = dependency.exists
    param.load_path, param.read_param_file = load, read
    dependency.exists = property(lambda self: Path(self.fs_path).match(str(CODE)) or is_there.fget(self))
    try:
        yield
    finally:
        param.load_path, param.read_param_file = load_path, read_param_file
        del dependency.exists  # that of its base again


def _value(block: Any, key: str) -> Any:
    """What is at a key such as recipes.nice.train, or MISSING."""
    for part in key.split("."):
        if not isinstance(block, Mapping) or part not in block:
            return MISSING
        block = block[part]
    return block


@contextlib.contextmanager
def _open(root: Path) -> Iterator[Repo]:
    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # its warnings and bars are not for our readers
    if not root.is_dir():
        raise BadInput(f"{root}: no such directory; go to the root of the project")
    lease.remove_broken_rwlock(root)
    try:
        # DVC names stages and files relative to the current directory
        with contextlib.chdir(root), Repo(config=_private(root)) as repo:
            if Path(repo.root_dir) != root.resolve():
                raise NotDvcRepoError(str(root))
            yield repo
    except NotDvcRepoError:
        raise BadState(
            f"{root}: not the root of a DVC project (no .dvc there); go to the root of the project"
        ) from None
    except LockError:
        raise Locked(
            f"{root}: another DVC command is at work here; run this again when it has ended"
        ) from None
    except DvcException as error:
        raise BadInput(unresolved(_one_line(error))) from None


def _private(root: Path) -> dict[str, Any]:
    """Settings with which DVC remembers hashes where no other user of the machine can write."""
    return {"core": {"site_cache_dir": str(private_state(root))}}


def _one_line(error: BaseException) -> str:
    causes = [" ".join(str(error).split())]
    while error.__cause__ is not None:  # the last cause names the place
        error = error.__cause__
        causes.append(" ".join(str(error).split()))
    return ": ".join(dict.fromkeys(cause for cause in causes if cause))


def _stages(nodes: list[Any], graph: Any, status: dict[str, Any]) -> tuple[Stage, ...]:
    stages: dict[str, Stage] = {}
    # its output is known before it has run, so nothing has to wait for it to be found stale
    known = {node.addressing for node in nodes for out in node.outs if Path(out.fs_path).match(str(CODE))}
    for node in nodes:
        upstream = tuple(sorted(above.addressing for above in graph.successors(node) if above.cmd))
        stale = [name for name in upstream if stages[name].is_stale and name not in known]
        made = {
            str(out) for above in graph.successors(node) if above.addressing in stale for out in above.outs
        }
        entries = status.get(node.addressing, [])
        reasons = (
            ["has never run"]
            if _never_ran(node)
            else [*_reasons(node, entries, made), *upstream_reason(stale)]
        )
        stages[node.addressing] = Stage(
            node.addressing, upstream, tuple(reasons), needs_of(node.addressing, node.meta)
        )
    return tuple(stages.values())


def _reasons(node: Any, entries: list[Any], made: set[str]) -> Iterator[str]:
    for entry in entries:
        if entry == "changed command":
            yield "command changed"
        elif isinstance(entry, str):
            yield entry
        else:
            yield from _dependency_reasons(node, entry.get("changed deps", {}), made)
            yield from (sentence(path, change) for path, change in entry.get("changed outs", {}).items())


def _never_ran(node: Any) -> bool:
    return bool(node.outs) and not any(out.hash_info for out in node.outs)


def _dependency_reasons(node: Any, changes: dict[str, Any], made: set[str]) -> Iterator[str]:
    parameters = {str(dep): dep for dep in node.deps if hasattr(dep, "read_params")}
    for path, change in changes.items():
        if path in parameters and change != "deleted":
            yield from _parameter_reasons(parameters[path])
        elif not _is_made(path, made) and not _is_none(
            node, path
        ):  # the stale stage upstream is the reason then
            yield sentence(path, change)


def _is_none(node: Any, path: str) -> bool:
    """Whether a dependency was the constant file that `genpipe code` writes again, whatever is there now."""
    constant = hashlib.md5(NOTHING, usedforsecurity=False).hexdigest()
    recorded = [dep.hash_info.value for dep in node.deps if str(dep) == path]
    return path == NONE.as_posix() and recorded == [constant]


def _parameter_reasons(dependency: Any) -> Iterator[str]:
    before, now = dependency.hash_info.value or {}, dependency.read_params()
    for name in dependency.params or now:
        paths = _differences(before.get(name), now.get(name), name)
        if Path(dependency.fs_path).match(str(CODE)):
            yield from code_reasons([path.removeprefix(f"{name}.") for path in paths])
        else:
            yield from (f"params {path} changed" for path in paths)


def _differences(before: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}")
    elif before != now:
        yield path


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
    if node.cmd:
        return missing_file(path, node.addressing)
    return pinned_problem(path, change, node.addressing, Path(path).exists())
