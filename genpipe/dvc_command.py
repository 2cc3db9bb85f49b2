"""DVC by its own command, in a process of its own. Its classes are read in genpipe/graph/in_process.py and nowhere else."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import suppress
from pathlib import Path

from genpipe.errors import BadState, Busy, Unavailable
from genpipe.git import one_line

# DVC sets these for a stage; a DVC that the stage starts must not see them
OF_A_STAGE = ("DVC_STAGE", "DVC_ROOT")
# DVC believes what it finds there of a file's hash; its own default is one directory for all users of the machine. For a DVC
# called by hand `make install` names it in .dvc/config.local, absolute; what .dvc/config names is relative to the current
# directory, so it serves in the root only, in a clone whose environment is another's.
STATE = ".dvc-state"
STATE_VARIABLE = "DVC_SITE_CACHE_DIR"
LOCKED = re.compile(r"Unable to acquire lock|it is being blocked by")  # of the project, of a path
OUTSIDE = "not inside of a DVC repository"
OTHER_STATE = f"name a directory of your own in {STATE_VARIABLE}"


class DvcFailed(Unavailable):
    """A command of DVC did not end well: one line, without credentials."""


def dvc(root: Path, *words: str) -> str:
    """What `dvc words…` prints; DvcFailed when it does not end well, Busy when another DVC command holds the lock."""
    done = subprocess.run(
        command(*words), cwd=root, env=environment(root), capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return done.stdout
    line = f"dvc {verb(words)}: {one_line(done.stderr) or 'it said nothing'}"
    if LOCKED.search(done.stderr):
        raise Busy(f"{root}: another DVC command is at work here; run this again when it has ended ({line})")
    if OUTSIDE in done.stderr:
        raise BadState(
            f"{root}: not the root of a DVC project (no .dvc there); go to the root of the project"
        )
    raise DvcFailed(line)


def command(*words: str) -> list[str]:
    """The command line of `dvc words…`."""
    return [sys.executable, "-P", "-m", "dvc", *words]  # -P: nothing of the current directory is imported


def environment(root: Path) -> dict[str, str]:
    """That of this process, for a DVC of the project whose stages find the commands of this environment though nobody
    activated it, and whose memory is private."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    kept = {name: value for name, value in os.environ.items() if name not in OF_A_STAGE}
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", STATE_VARIABLE: str(private_state(root))}


def private_state(root: Path) -> Path:
    """The directory where DVC remembers the hashes of files; made private where it is missing, and ours is kept so."""
    state = state_of(root)
    if (root / ".dvc").is_dir():
        try:
            for directory in (state, state / "repo"):  # else DVC makes them, writable by all
                directory.mkdir(mode=0o700, exist_ok=True)
            if state == root.resolve() / STATE:
                _close(state)
        except OSError as error:
            raise BadState(f"{state}: {error.strerror}; {OTHER_STATE}") from None
    return state


def _close(state: Path) -> None:
    for directory in (state, state / "repo"):
        if directory.stat().st_uid != os.getuid():
            raise BadState(f"{directory}: another user owns it; {OTHER_STATE}")
        directory.chmod(0o700)
    if not (ignored := state / "repo" / ".gitignore").exists():
        ignored.write_text("*\n", encoding="utf-8")


def state_of(root: Path) -> Path:
    """That directory as the environment, else the configuration of the project, names it, else ours."""
    return root.resolve() / (next(named_states(root), STATE))


def named_states(root: Path) -> Iterator[str]:
    """The names that the environment and the configuration give it, the first that counts first."""
    if name := os.environ.get(STATE_VARIABLE):
        yield name
    for file in ("config.local", "config"):
        config = ConfigParser(strict=False, interpolation=None)
        with suppress(ConfigError, UnicodeDecodeError):
            config.read(root / ".dvc" / file, encoding="utf-8")
            if name := config.get("core", "site_cache_dir", fallback=""):
                yield name


def verb(words: tuple[str, ...]) -> str:
    """What is done: the first word that is no option."""
    return next(word for word in words if not word.startswith("-"))
