"""DVC by its own command, in a process of its own. Its classes are read in genpipe/graph/in_process.py and nowhere else."""

import os
import subprocess
import sys
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.git import one_line

# what DVC tells a stage of itself; another DVC is none of that stage's
OF_A_STAGE = ("DVC_STAGE", "DVC_ROOT")


class DvcFailed(BadInput):
    """A command of DVC did not end well: one line, without credentials."""


def dvc(root: Path, *words: str) -> str:
    """What `dvc words…` prints; DvcFailed when it does not end well."""
    done = subprocess.run(
        command(*words), cwd=root, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DvcFailed(f"dvc {verb(words)}: {one_line(done.stderr) or 'it said nothing'}")
    return done.stdout


def command(*words: str) -> list[str]:
    """The command line of `dvc words…`."""
    return [sys.executable, "-m", "dvc", *words]


def environment() -> dict[str, str]:
    """That of this process, for a DVC whose stages find the commands of this environment though nobody activated it."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    kept = {name: value for name, value in os.environ.items() if name not in OF_A_STAGE}
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1"}


def verb(words: tuple[str, ...]) -> str:
    """What is done: the first word that is no option."""
    return next(word for word in words if not word.startswith("-"))
