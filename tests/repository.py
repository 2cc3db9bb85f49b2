"""Git and DVC by their commands, in the repositories that tests make, as somebody who has a name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = {
    **os.environ,
    "DVC_NO_ANALYTICS": "1",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    **{f"GIT_{role}_NAME": "Ada" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_EMAIL": "ada@example.org" for role in ("AUTHOR", "COMMITTER")},
}


def be_somebody(patch: pytest.MonkeyPatch) -> None:
    """Give this process the environment of `run`, for what it starts itself."""
    for name in ("PATH", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        patch.setenv(name, ENVIRONMENT[name])


def run(root: Path, *command: str) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run(command, cwd=root, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def dvc(root: Path, *words: str) -> str:
    return run(root, sys.executable, "-m", "dvc", *words)


def make_repository(root: Path) -> Path:
    """An empty one, of Git and of DVC."""
    run(root, "git", "init", "-q", "-b", "main")
    dvc(root, "init", "-q")
    return root


def commit(root: Path, subject: str, *but: str) -> str:
    """Commit everything but some paths; the hash of the commit."""
    run(root, "git", "add", "--all", "--", ".", *(f":!{path}" for path in but))
    run(root, "git", "commit", "-q", "--allow-empty", "-m", subject)
    return run(root, "git", "rev-parse", "HEAD").strip()
