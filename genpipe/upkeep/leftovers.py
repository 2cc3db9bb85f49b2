"""What can go: runs that nothing asks for any more, what killed processes left, old logs, unused objects of DVC's cache.

Nothing that somebody works on goes: a run's lease is taken before it is removed, and a directory goes as a whole.
"""

import contextlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from genpipe import lease
from genpipe.dvc_command import dvc
from genpipe.errors import BadState, GenpipeError
from genpipe.files import REMAINS, temporary_name
from genpipe.params.project import Params, read_params
from genpipe.upkeep.holders import held_leases
from genpipe.upkeep.sizes import readable, size_of

RECENT = 3600.0  # seconds: a process number says nothing of a worker on another machine; its files are recent
DAY = 86400.0  # seconds
RUN = re.compile(r"(?P<recipe>[a-z0-9_]+)-(?P<key>[0-9a-f]{16})")
TRIALS = "trials"  # workspaces below .genpipe, made again where needed, and the lease of who uses them
NUMBERED = ("determinism", "ray")  # below .genpipe: NAME-PID of who works there
NOT_OURS = {".git", ".venv", ".dvc", ".dvc-state"}


@dataclass(frozen=True)
class Leftover:
    """What can go, and why; `held_by` is the lease under which it is written."""

    path: Path
    why: str
    size: int
    held_by: str | None = None


def leftovers(root: Path, days: float) -> list[Leftover]:
    """All that can go in a project, except DVC's cache; logs and kept work go after `days`."""
    return [
        *old_runs(root),
        *half_written(root),
        *dead_scratch(root),
        *old_shards(root, days),
        *unused(root, days),
    ]


def old_runs(root: Path) -> Iterator[Leftover]:
    """Directories of runs whose key no recipe has now; all of a recipe stay where its key cannot be computed."""
    runs = [(path, found) for path in _children(root, "runs") if (found := RUN.fullmatch(path.name))]
    if not runs:
        return
    params, held = read_params(root), held_leases(root)
    current: dict[str, set[str] | None] = {}
    for path, found in runs:
        recipe, writer = found["recipe"], f"train@{found['recipe']}"
        if recipe not in current:
            current[recipe] = current_keys(root, recipe, params)
        keys = current[recipe]
        if keys is not None and found["key"] not in keys and writer not in held:
            yield Leftover(path, "no recipe has this key now", size_of(path), writer)


def current_keys(root: Path, recipe: str, params: Params) -> set[str] | None:
    """The keys that runs of a recipe have now, on each kind of device; None where its data is not there to tell."""
    from genpipe.experiment import identity, run_key  # torch takes seconds

    if recipe not in params.recipes:
        return set()
    with contextlib.suppress(GenpipeError):
        training = params.recipes[recipe].train
        cards = (identity(root, recipe, params, training, params.seed, device) for device in ("cpu", "cuda"))
        return {run_key(card) for card in cards}
    return None


def half_written(root: Path) -> Iterator[Leftover]:
    """Files and directories that processes were writing when they were killed."""
    for path in _walk(root):
        found = REMAINS.fullmatch(path.name)
        if found and not psutil.pid_exists(int(found["pid"])) and _age(path) > RECENT:
            yield Leftover(path, f"process {found['pid']} was writing it and has ended", size_of(path))


def dead_scratch(root: Path) -> Iterator[Leftover]:
    """Scratch directories of dead processes of this machine."""
    scratch = [*_children(root, "counts"), *_children(root, "encoded", "*")]
    for path in [*scratch, *(path for name in NUMBERED for path in _children(root, name))]:
        pid = _writer_of(path)
        if pid is not None and not psutil.pid_exists(pid):
            yield Leftover(path, f"scratch of process {pid}, which has ended", size_of(path))


def _writer_of(path: Path) -> int | None:
    """The process of this machine whose scratch a directory is."""
    name = (
        r".+-(\d+)" if path.parent.name in NUMBERED else rf"[a-z]+-{re.escape(socket.gethostname())}-(\d+)-.*"
    )
    found = re.fullmatch(name, path.name)
    return int(found[1]) if found and path.is_dir() else None


def old_shards(root: Path, days: float) -> Iterator[Leftover]:
    """Shards that were counted or encoded long ago, where nobody counts or encodes now."""
    for directory in (root / ".genpipe" / "counts", *_children(root, "encoded")):
        children = sorted(directory.glob("*"))
        if not any(child.is_dir() for child in children):  # else somebody may add them up now
            for shard in children:
                if _age(shard) > days * DAY:
                    yield Leftover(
                        shard, f"a shard's result, {_age(shard) / DAY:.0f} days old", size_of(shard)
                    )


def unused(root: Path, days: float) -> Iterator[Leftover]:
    """Logs and workspaces of trials that were not written for long."""
    is_trying = TRIALS in held_leases(root)
    aged = [(path, None) for path in _children(root, "logs")]
    aged += [(path, TRIALS) for path in _children(root, TRIALS) if not is_trying and not held_leases(path)]
    for path, held_by in aged:
        if _age(path) > days * DAY:
            yield Leftover(path, f"not written for {_age(path) / DAY:.0f} days", size_of(path), held_by)


def _children(root: Path, *names: str) -> list[Path]:
    return sorted((root / ".genpipe").glob("/".join((*names, "*"))))


def _age(path: Path) -> float:
    """Seconds since a file, or the youngest file of a directory, was written."""
    newest = 0.0
    for file in (path, *(path.rglob("*") if path.is_dir() else ())):
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, file.lstat().st_mtime)
    return time.time() - newest


def _walk(root: Path) -> Iterator[Path]:
    """Every file and directory of ours; what is half-written is not entered."""
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name not in NOT_OURS]
        yield from (Path(directory, name) for name in (*names, *files))
        names[:] = [name for name in names if not REMAINS.fullmatch(name)]


def remove(root: Path, found: Iterable[Leftover]) -> int:
    """Remove what was found, except what somebody has taken up meanwhile; the bytes that are free now."""
    freed = 0
    for item in found:
        with contextlib.suppress(lease.Busy), contextlib.ExitStack() as held:
            if item.held_by:
                held.callback(lease.hold(root, item.held_by).close)
            _remove(item.path)
            freed += item.size
    return freed


def _remove(path: Path) -> None:
    """Remove a file, or a directory as a whole: half a run must never look like a run."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    going = temporary_name(path, "replaced")
    with contextlib.suppress(FileNotFoundError):
        path.rename(going)
        shutil.rmtree(going)


def unused_objects(root: Path) -> list[Leftover]:
    """The files of DVC's cache that no branch, tag or workspace needs; the workspaces below .genpipe count too."""
    if not (root / ".dvc").is_dir():
        return []
    lines = _dvc_gc(root, "--dry").splitlines()
    paths = [Path(line.removeprefix("Removing ")) for line in lines if line.startswith("Removing ")]
    return [Leftover(path, "no branch, tag or workspace needs it", size_of(path)) for path in paths]


def remove_unused_objects(root: Path, cached: list[Leftover]) -> int:
    """Let DVC remove them; the bytes that are free now."""
    _dvc_gc(root, "--force")
    return sum(item.size for item in cached if not item.path.exists())


def require_own_cache(root: Path) -> None:
    """Refuse where other projects may use the cache: only they know what they need."""
    cache = Path(dvc(root, "cache", "dir").strip())
    if not cache.resolve().is_relative_to(root.resolve()):
        raise BadState(
            f"{cache}: the cache of DVC lies outside this project, and others may need what is in it; "
            "name them: dvc gc --workspace --all-branches --all-tags --projects PATH …"
        )


def _dvc_gc(root: Path, how: str) -> str:
    own = [str(path.parent) for path in _children(root, "*", "*") if path.name == ".dvc"]
    projects = ["--projects", *own] if own else []
    return dvc(root, "gc", "--workspace", "--all-branches", "--all-tags", how, *projects)


def describe(root: Path, found: list[Leftover], cached: list[Leftover]) -> str:
    """What can go, with sizes, the largest first; the objects of the cache are one line."""
    rows = [(item.size, str(item.path.relative_to(root)), item.why) for item in found]
    if cached:
        rows.append(
            (sum(item.size for item in cached), f"{len(cached)} objects of DVC's cache", cached[0].why)
        )
    if not rows:
        return "nothing can go"
    total = readable(sum(size for size, _, _ in rows))
    lines = [f"{readable(size):>9}  {name}  ({why})" for size, name, why in sorted(rows, reverse=True)]
    return "\n".join([*lines, f"{total:>9}  in all"])
