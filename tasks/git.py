"""What Git knows of a project: its tracked files, and files as they were at a revision. Nothing is changed."""

import subprocess
from pathlib import Path

from genpipe.errors import BadInput


def tracked(root: Path) -> list[str]:
    """The tracked files that are there, relative to `root`, sorted."""
    names = _git(root, "ls-files", "-z").decode().split("\0")
    return sorted(name for name in names if name and (root / name).is_file())


def commit_of(root: Path, revision: str) -> str:
    """The hash of the commit that a revision names."""
    try:
        words = ("rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        return _git(root, *words).decode().strip()
    except BadInput:
        raise BadInput(
            f"{revision}: no such Git revision; `git log` and `git tag` name those there are"
        ) from None


def committed_at(root: Path, commit: str) -> int:
    """When a commit was made, in seconds since 1970."""
    return int(_git(root, "show", "--no-patch", "--format=%ct", commit))


def files_at(root: Path, commit: str, *paths: str) -> list[str]:
    """The files below `paths` (all files when none is given) that a commit has, relative to `root`."""
    names = _git(root, "ls-tree", "-r", "-z", "--name-only", commit, "--", *paths).decode().split("\0")
    return [name for name in names if name]


def content_at(root: Path, commit: str, name: str) -> bytes:
    """The bytes of a file at a commit."""
    return _git(root, "show", f"{commit}:./{name}")


def _git(root: Path, *words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise BadInput(f"git {words[0]}: {said[-1]}; mend that and run it again")
    return done.stdout
