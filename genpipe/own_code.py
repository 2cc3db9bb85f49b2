"""Which code runs: that of the project whose files DVC hashes, or none.

An environment imports the checkout that was installed into it. In a worktree, a queued experiment of DVC or a second clone
that would be the code of one place under the hash of another.
"""

import importlib
import os
import socket
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from genpipe.errors import BadState
from genpipe.files import hash_of

PACKAGE = Path(__file__).parent
PARTS = ("genpipe", "tasks", "flows")
SUFFIXES = (".py", ".html", ".css")  # what an installed package holds


@cache
def digest(package: Path = PACKAGE) -> str:
    """SHA-256 over the code of a package, wherever it lies."""
    return hash_of((path for path in package.rglob("*") if path.suffix in SUFFIXES), package)


def become(root: Path, words: Sequence[str]) -> None:
    """Let a stage run the code of its project: replace this process by `genpipe WORDS…` of the package in `root`.

    Returns where that is the code already, or the project has none. DVC runs what the project says, so nothing is run here
    that the project could not run anyway.
    """
    if _is_ours(root, "genpipe"):
        return
    before = os.environ.get("PYTHONPATH", "")
    is_tried = before.split(os.pathsep)[0] == str(root)
    if is_tried or os.pathsep in str(root):
        raise _refusal(root, "genpipe")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), before]))
    # -P: not that of the current directory
    os.execv(sys.executable, [sys.executable, "-P", "-m", "genpipe.cli", *words])


def require(root: Path, *parts: str) -> None:
    """Raise BadState where the project has other code of its own than what was imported; it may have none."""
    for part in parts:
        if not _is_ours(root, part) and digest(_imported(part)) != digest(root / part):
            raise _refusal(root, part)


def require_same(wanted: str) -> None:
    """Raise BadState in a worker whose genpipe is not the code with this digest."""
    if digest() != wanted:
        raise BadState(
            f"{socket.gethostname()}: the genpipe of this node, in {PACKAGE.parent}, is not the code of the process that "
            "gives it work; install the same version on every node"
        )


def _is_ours(root: Path, part: str) -> bool:
    """Whether a project has no such package, or it is the one that was imported."""
    own = root / part
    return not (own / "__init__.py").exists() or own.samefile(_imported(part))


def _imported(part: str) -> Path:
    return Path(importlib.import_module(part).__path__[0])


def _refusal(root: Path, part: str) -> BadState:
    return BadState(
        f"{root} has its own {part}, and what was imported is other code, {_imported(part)}; use the environment of this "
        f"project, or put PYTHONPATH={root} before the command"
    )
