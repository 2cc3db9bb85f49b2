"""Git by its own command: what stands at a revision, and what a remote has. Nothing here touches what is checked out."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from genpipe.errors import BadState, Unavailable
from genpipe.redaction import masker

BOT = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "genpipe"), ("EMAIL", "genpipe@localhost"))
}
NEVER_ASK = {  # nobody sits before a nightly run
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
}
OUTSIDE = "not a git repository"
PATIENCE = 300.0  # seconds that a remote may take


class GitFailed(Unavailable):
    """A command of Git did not end well, most often because a remote cannot be reached: one line, without credentials."""


def git(root: Path, *words: str, given: str | None = None, extra: Mapping[str, str] | None = None) -> str:
    """What `git words…` prints, without the last newline; GitFailed when it does not end well, BadState without a repository."""
    try:
        done = _run(root, words, given, extra or {})
    except subprocess.TimeoutExpired:
        raise GitFailed(f"git {words[0]}: no answer in {PATIENCE:g} seconds") from None
    if done.returncode != 0:
        output = done.stderr.decode(errors="replace") or done.stdout.decode(errors="replace")
        if OUTSIDE in output:
            raise BadState(
                f"{root}: not in a Git repository; go to the root of the project, or begin one with git init"
            )
        raise GitFailed(f"git {words[0]}: {one_line(output) or f'exit status {done.returncode}'}")
    return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


def agrees(root: Path, *words: str) -> bool:
    """Whether `git words…` ends with status 0."""
    return _run(root, words, None, {}).returncode == 0


def show(root: Path, revision: str, path: str) -> bytes | None:
    """A file of the project as it stands at a revision; None where it is not there."""
    done = _run(root, ("cat-file", "blob", f"{revision}:./{path}"), None, {})
    return done.stdout if done.returncode == 0 else None


def commit_of(root: Path, revision: str) -> str | None:
    """The full name of the commit that a revision means."""
    done = _run(
        root, ("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}"), None, {}
    )
    return done.stdout.decode().strip() if done.returncode == 0 else None


def files_of(root: Path, with_new: bool = False) -> list[str]:
    """The tracked files that are there, relative to `root`, sorted; `with_new` also those that are not ignored."""
    words = ["--cached", *(["--others", "--exclude-standard"] if with_new else [])]
    names = git(root, "ls-files", "-z", *words).split("\0")
    return sorted(name for name in names if name and (root / name).is_file())


def files_at(root: Path, commit: str, *paths: str) -> list[str]:
    """The files below `paths` (all files when none is given) that a commit has, relative to `root`."""
    names = git(root, "ls-tree", "-r", "-z", "--name-only", commit, "--", *paths).split("\0")
    return [name for name in names if name]


def remote_of(root: Path) -> str | None:
    """The remote to publish to: that of the branch which is checked out, else origin, else the first there is."""
    remotes = git(root, "remote").split()
    branch = _run(root, ("symbolic-ref", "--short", "--quiet", "HEAD"), None, {}).stdout.decode().strip()
    configured = _run(root, ("config", f"branch.{branch}.remote"), None, {}).stdout.decode().strip()
    return next((name for name in (configured, "origin", *remotes) if name in remotes), None)


def is_on_remote(root: Path, remote: str, commit: str) -> bool:
    """Whether a branch of the remote, as it was last fetched, holds a commit."""
    return bool(git(root, "for-each-ref", "--count=1", f"--contains={commit}", f"refs/remotes/{remote}"))


def lines_of(text: str) -> list[str]:
    """The lines of what Git printed. Git ends a line with \\n alone; str.splitlines would also cut inside names and subjects."""
    return text.split("\n") if text else []


def one_line(text: str) -> str:
    """The lines that tell what went wrong, as one, with credentials masked."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("hint:")]
    telling = [line for line in lines if re.match(r"(fatal|error|remote|ERROR| *!)", line)]
    return masker()("; ".join(telling or lines[-1:]))


def _run(
    root: Path, words: tuple[str, ...], given: str | None, extra: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["git", *words],
        cwd=root,
        env={**os.environ, **NEVER_ASK, **extra},
        input=(given or "").encode("utf-8", "surrogateescape"),
        capture_output=True,
        timeout=PATIENCE,
    )
