"""What of a working tree no commit has, and which of it a published run needs or writes."""

from pathlib import Path, PurePosixPath

from genpipe.errors import BadState
from genpipe.git import commit_of, git
from genpipe.graph import Layout, layout
from genpipe.registry.lock import LOCK, METRICS, read_lock
from genpipe.sources.pin import pins_of

PIN = ".dvc"  # ending of what says which raw data a run read; new data may leave that commit to us
GRAPH = ("dvc.yaml", "params.yaml")


def require_clean(root: Path, allow_dirty: bool) -> None:
    """Refuse, before anything is run, to publish from a tree with code that no commit has."""
    if commit_of(root, "HEAD") is None:
        raise BadState(
            f"{root}: publishing needs a Git repository with a commit; git init, git add and git commit"
        )
    changed = [] if allow_dirty else [*changed_files(root), *_uncommitted_inputs(root, _untracked(root))]
    if changed:
        raise BadState(
            f"publishing needs a tree without uncommitted changes, and there are {some(changed)}; commit them, or add --allow-dirty"
        )
    if not allow_dirty:
        require_declared(root)


def require_committed_inputs(root: Path) -> None:
    """What the stages read must still be what HEAD has; other files may have been edited meanwhile."""
    changed = _uncommitted_inputs(root, [*changed_files(root), *_untracked(root)])
    if changed:
        raise BadState(
            f"not published: uncommitted changes of {some(changed)}; commit them and run the same command again, or say "
            "--allow-dirty"
        )


def require_declared(root: Path) -> None:
    """What stages read must be what stages, .dvc files or Git have: else nobody who gets the commit has the same."""
    found = layout(root)
    if removed := sorted(_locked(root) - found.stages):
        raise BadState(
            f"not published: {LOCK} has {some(removed)}, which dvc.yaml no longer has; genpipe gc --stages --yes removes "
            "that and what it made"
        )
    if stray := undeclared(root, found):
        raise BadState(
            f"not published: stages read {some(stray)}, which no stage makes and Git does not track; take it away, let "
            "Git track it, or dvc add it"
        )


def undeclared(root: Path, found: Layout) -> list[str]:
    """Files that stages read and that neither an output nor Git has; metrics are no sources though Git tracks them."""
    tracked = set(git(root, "ls-files", "-z").split("\0"))
    return [path for path in found.sources if path not in tracked or is_ours(path)]


def _locked(root: Path) -> set[str]:
    return set(read_lock(root).stages) if (root / LOCK).exists() else set()


def _uncommitted_inputs(root: Path, paths: list[str]) -> list[str]:
    return inputs_among(root, [path for path in paths if not is_ours(path)])


def changed_files(root: Path) -> list[str]:
    """Tracked files that differ from HEAD, but for those that a run writes."""
    paths = git(root, "diff", "--name-only", "-z", "--relative", "HEAD").split("\0")
    return [path for path in paths if path and not is_ours(path)]


def _untracked(root: Path) -> list[str]:
    return git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")


def inputs_among(root: Path, paths: list[str]) -> list[str]:
    """Those of `paths` that define the graph, or that a stage of dvc.lock reads, alone or with their directory."""
    read = {*GRAPH, *_read_by_stages(root)}
    return [path for path in paths if read & {path, *(str(above) for above in PurePosixPath(path).parents)}]


def _read_by_stages(root: Path) -> set[str]:
    if not (root / LOCK).exists():
        return set()
    lock = read_lock(root)
    return {entry["path"] for stage in lock.stages for entry in lock.inputs(stage)}


def is_ours(path: str) -> bool:
    """Whether a run writes the file, and its commit has it."""
    return path == LOCK or path.endswith(PIN) or (path.startswith(f"{METRICS}/") and path.endswith(".json"))


def published_files(root: Path) -> list[str]:
    """What the commit of a run holds beside what it stands on."""
    made = [entry["path"] for _, entry in read_lock(root).outputs() if is_ours(entry["path"])]
    return [path for path in (LOCK, *pins_of(root), *made) if (root / path).exists()]


def some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
