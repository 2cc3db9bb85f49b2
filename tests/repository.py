"""Git and DVC by their commands, in the repositories that tests make, as somebody who has a name."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NAMED = {
    **{f"GIT_{role}_NAME": "Ada" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_EMAIL": "ada@example.org" for role in ("AUTHOR", "COMMITTER")},
}


def as_somebody() -> dict[str, str]:
    """The environment of now, with a name to commit with, and the commands of the Python that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **NAMED, "PATH": path, "DVC_NO_ANALYTICS": "1"}


def be_somebody(patch: pytest.MonkeyPatch) -> None:
    """Give this process the environment of `run`, for what it starts itself."""
    for name in ("PATH", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        patch.setenv(name, as_somebody()[name])


def run(root: Path, *command: str) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run(command, cwd=root, env=as_somebody(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def dvc(root: Path, *words: str) -> str:
    return run(root, sys.executable, "-m", "dvc", *words)


def make_repository(root: Path) -> Path:
    """An empty one, of Git and of DVC."""
    return Path(shutil.copytree(_empty_repository(), root, symlinks=True, dirs_exist_ok=True))


@functools.cache
def _empty_repository() -> Path:
    """Made once in a process: DVC takes a second."""
    home = Path(tempfile.mkdtemp(prefix="genpipe-repository-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    root = home / "empty"
    root.mkdir()
    run(root, "git", "init", "-q", "-b", "main")
    dvc(root, "init", "-q")
    return root


def commit(root: Path, subject: str, *but: str) -> str:
    """Commit everything but some paths; the hash of the commit."""
    run(root, "git", "add", "--all", "--", ".", *(f":!{path}" for path in but))
    run(root, "git", "commit", "-q", "--allow-empty", "-m", subject)
    return run(root, "git", "rev-parse", "HEAD").strip()
