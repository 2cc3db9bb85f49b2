"""Publish a verified run: its objects by `dvc push`, then dvc.lock and metrics on a branch `genpipe/run-…`. No Prefect here.

The commit is made by Git's plumbing with an index of its own: what is checked out, staged or edited is never touched.
Objects go first, so that no published dvc.lock names one that is missing; a run that ends anywhere on the way is
published by the next one.
"""

import json
import os
import platform
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from genpipe import dvc_command
from genpipe.errors import WorkFailed
from genpipe.git import BOT, GitFailed, agrees, commit_of, git, is_on_remote, lines_of, one_line, remote_of
from genpipe.graph import layout
from genpipe.params.promotion import Rules
from genpipe.registry.lock import LOCK, METRICS
from genpipe.registry.trace import MACHINE
from genpipe.sources.pin import pins_of
from tasks import guard
from tasks.changes import (
    changed_files,
    inputs_among,
    is_ours,
    published_files,
    require_committed_inputs,
    require_declared,
    some,
    undeclared,
)

BRANCHES = "genpipe/run-"
NO_OLD_VALUE = "0" * 40  # a reference that must be new
AGAIN = "nothing is lost: the same command again publishes it"
NO_STORE = (
    "not pushed, for DVC has no remote and nobody else could get the objects; dvc remote add -d gives it one"
)


class PublishFailed(WorkFailed):
    """A run is not published: one line that says why."""


@dataclass(frozen=True)
class Published:
    """The commit that has a run's dvc.lock, and the Git remote that has the commit (None: it is only here)."""

    commit: str
    branch: str | None = None  # None where somebody committed it on another branch than ours
    remote: str | None = None
    notes: tuple[str, ...] = ()
    is_new: bool = False  # committed or pushed just now

    def describe(self) -> str:
        """One line."""
        place = f"pushed to {self.remote}" if self.remote else "local"
        return "; ".join((f"{self.branch or 'HEAD'} ({self.commit:.12}, {place})", *self.notes))


def publish(root: Path, name: str, allow_dirty: bool = False) -> Published:
    """Publish what dvc.lock says on a branch with `name` in it; the same lock is published once.

    BadInput when the code was changed since the stages ran, PublishFailed when a remote fails or an object is missing.
    """
    remote = remote_of(root)
    trouble = _fetch(root, remote)
    known = _find(root, remote)
    if known and (known.remote or remote is None):
        return known
    if known is None and not allow_dirty:
        require_committed_inputs(root)
        require_declared(root)
    has_store = _push_objects(root)
    run = known or _commit(root, name, None if trouble else remote, allow_dirty)
    if remote is None:
        return run
    if not has_store:
        return replace(run, notes=(*run.notes, NO_STORE))
    if trouble:
        raise PublishFailed(f"{run.branch or 'HEAD'} is not pushed: {trouble}; {AGAIN}")
    return _push(root, name, remote, run)


def is_outstanding(root: Path, rules: Rules) -> bool:
    """Whether an earlier run left something to publish or to promote of this dvc.lock."""
    from genpipe.registry.promotion import decide  # imports gto, which takes a third of a second
    from genpipe.registry.tags import fetch_tags, unpushed_tags

    remote = remote_of(root)
    _fetch(root, remote)
    known = _find(root, remote)
    if known is None or (remote and known.remote is None and _has_store(root)):
        return True
    if known.remote:
        fetch_tags(root, known.remote, rules)
        if unpushed_tags(root, known.remote, rules):
            return True
    return any(decision.action == "promote" for decision in decide(root, known.commit, rules))


def _fetch(root: Path, remote: str | None) -> str | None:
    """Bring what is known of a remote's branches up to date; what went wrong, if something did."""
    try:
        if remote:
            git(root, "fetch", "--quiet", "--no-tags", remote, f"+refs/heads/*:refs/remotes/{remote}/*")
    except GitFailed as error:
        return str(error)
    return None


def _find(root: Path, remote: str | None) -> Published | None:
    """A commit that has this dvc.lock, if there is one; one on the remote rather than one that is only here."""
    there = f"refs/remotes/{remote}"
    found = git(root, "for-each-ref", "--format=%(refname)", there, f"refs/heads/{BRANCHES}*")
    names = [name for name in (*lines_of(found), "HEAD") if name != f"{there}/HEAD"]
    wanted = git(root, "hash-object", LOCK) if (root / LOCK).exists() else None
    objects = git(
        root, "cat-file", "--batch-check=%(objectname)", given="".join(f"{n}:./{LOCK}\n" for n in names)
    )
    pairs = zip(names, lines_of(objects), strict=True)
    same = [name for name, line in pairs if line == wanted and _has_metrics(root, name)]
    for name in same:
        commit = git(root, "rev-parse", name)
        if remote and is_on_remote(root, remote, commit):
            return Published(commit, _branch(name), remote)
    return Published(git(root, "rev-parse", same[0]), _branch(same[0])) if same else None


def _has_metrics(root: Path, revision: str) -> bool:
    """Whether a commit has the metrics beside dvc.lock; one that a person made may lack them."""
    committed = set(git(root, "ls-tree", "-r", "-z", "--name-only", revision, "--", METRICS).split("\0"))
    return {path for path in published_files(root) if path.startswith(METRICS)} <= committed


def _branch(reference: str) -> str | None:
    _, ours, rest = reference.partition(BRANCHES)
    return ours + rest or None


def _push_objects(root: Path) -> bool:
    """`dvc push`; False where DVC has no remote. PublishFailed when it fails, or an object is nowhere."""
    has_store = _has_store(root)
    if has_store:
        _dvc(root, "--wait-for-lock", "push", "--quiet", "--run-cache")
    # dvc push ends well though it warns that objects are missing
    where, key = (["--not-in-remote", "--granular"], "not_in_remote") if has_store else ([], "not_in_cache")
    status = json.loads(_dvc(root, "data", "status", "--json", *where))
    missing = [path for path in status.get(key, []) if not _was_never_fetched(root, path)]
    if missing:
        raise PublishFailed(
            f"not published: DVC has no object of {some(missing)}, neither here nor on a remote; make them again "
            "with dvc repro --force STAGE, or bring the cache back"
        )
    return has_store


def _was_never_fetched(root: Path, path: str) -> bool:
    """Whether a path is in raw data that is not here, so that no stage of this run has read it: `genpipe data` fetches it."""
    names = [pin.removesuffix(".dvc") for pin in pins_of(root) if pin.startswith("data/")]
    return any(f"{path}/".startswith(f"{name}/") and not (root / name).exists() for name in names)


def _has_store(root: Path) -> bool:
    try:
        return bool(dvc_command.dvc(root, "config", "core.remote").strip())
    except dvc_command.DvcFailed:
        return False


def _dvc(root: Path, *words: str) -> str:
    """What a command of DVC prints; its processes end with this one."""
    done = guard.run(dvc_command.command(*words), root, dvc_command.environment(root))
    if done.returncode != 0:
        failed = f"dvc {dvc_command.verb(words)} failed: {one_line(done.stderr)}"
        raise PublishFailed(f"not published: {failed}; {AGAIN}")
    return done.stdout


def _commit(root: Path, name: str, remote: str | None, allow_dirty: bool) -> Published:
    """A new branch with one commit: dvc.lock, the pin of the raw data and the metrics, on HEAD or on the remote's main."""
    base, notes = _base(root, remote)
    with tempfile.TemporaryDirectory() as directory:
        index = {"GIT_INDEX_FILE": str(Path(directory) / "index")}
        git(root, "read-tree", base, extra=index)
        _drop_metrics_of_others(root, index)
        git(root, "add", "--force", "--", *published_files(root), extra=index)
        tree = git(root, "write-tree", extra=index)
    uncommitted = [*changed_files(root), *undeclared(root, layout(root))] if allow_dirty else []
    body = [
        f"genpipe run {name}",
        f"Made with uncommitted changes of {some(uncommitted)}." if uncommitted else "",
        f"{MACHINE}: {_machine()}",
    ]
    commit = git(root, "commit-tree", tree, "-p", base, given="\n\n".join(filter(None, body)), extra=BOT)
    return Published(commit, _new_branch(root, name, commit), None, notes, is_new=True)


def _drop_metrics_of_others(root: Path, index: dict[str, str]) -> None:
    """A commit has the metrics of its own run alone: those of a recipe that was removed since are in what it stands on."""
    kept = set(published_files(root))
    committed = git(root, "ls-files", "-z", "--", METRICS, extra=index).split("\0")
    dropped = [path for path in committed if is_ours(path) and path not in kept]
    if dropped:
        git(root, "rm", "--quiet", "--cached", "--", *dropped, extra=index)


def _machine() -> str:
    system, cpuinfo = platform.uname(), Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*: (.*)", cpuinfo.read_text(), re.M) if cpuinfo.exists() else []
    processors = f"{len(models)} x {models[0]}" if models else f"{os.cpu_count()} processors"
    return f"{system.system} on {system.machine}, {processors}, Python {platform.python_version()}"


def _new_branch(root: Path, name: str, commit: str) -> str:
    """A branch of ours at `commit`, with a name that is free."""
    plain = BRANCHES + (re.sub("[^A-Za-z0-9_-]+", "-", name).strip("-") or commit[:12])
    taken = commit_of(root, f"refs/heads/{plain}")
    branch = plain if taken in (None, commit) else f"{plain}-{commit[:12]}"
    if commit_of(root, f"refs/heads/{branch}") is None:
        git(root, "update-ref", f"refs/heads/{branch}", commit, NO_OLD_VALUE)
    return branch


def _base(root: Path, remote: str | None) -> tuple[str, tuple[str, ...]]:
    """What the commit goes on: the remote's main branch where that has moved on in nothing the run read, else HEAD."""
    head = git(root, "rev-parse", "HEAD")
    main = _main_of(root, remote) if remote else None
    if main is None or agrees(root, "merge-base", "--is-ancestor", main, head):
        return head, ()
    if not agrees(root, "merge-base", "--is-ancestor", head, main):
        return head, (f"not rebased: the main branch of {remote} and this one have gone different ways",)
    moved = git(root, "diff", "--name-only", "-z", "--relative", head, main).split("\0")
    met = [path for path in moved if is_ours(path)] + inputs_among(root, moved)
    if met:
        why = f"not rebased: the main branch of {remote} has moved on in {some(met)}, which this run used; run it again there"
        return head, (why,)
    return main, (f"rebased on the main branch of {remote}",)


def _main_of(root: Path, remote: str) -> str | None:
    found = re.search(
        r"^ref: refs/heads/(\S+)\tHEAD$", git(root, "ls-remote", "--symref", remote, "HEAD"), re.M
    )
    return commit_of(root, f"refs/remotes/{remote}/{found[1]}") if found else None


def _push(root: Path, name: str, remote: str, run: Published) -> Published:
    branch = run.branch or _new_branch(root, name, run.commit)
    try:
        git(root, "push", "--quiet", remote, f"refs/heads/{branch}:refs/heads/{branch}")
    except GitFailed as error:
        _fetch(root, remote)
        if commit_of(root, f"refs/remotes/{remote}/{branch}") in (None, run.commit):
            raise PublishFailed(f"{branch} is not pushed: {error}; {AGAIN}") from None
        taken, branch = branch, f"{branch}-{run.commit[:12]}"  # by a run of another clone
        git(root, "branch", "--move", taken, branch)
        return _push(root, name, remote, replace(run, branch=branch))
    return replace(run, branch=branch, remote=remote, is_new=True)
