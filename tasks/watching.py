"""What the raw data of a project is now, found cheaply, and whether it changed since that was last announced.

A change is announced once: before the announcement its identity is written down, and after it that it was made. Whoever is
killed in between announces the same identity again, which the receiver knows already.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genpipe.errors import BadState
from genpipe.files import read_json, write_json
from genpipe.params.project import read_params
from genpipe.sources.pin import Seen, directory_md5, pinned_md5, pins_of

SETTLED = 2.0  # seconds in which nothing may change: what is still being copied is no new data yet


@dataclass(frozen=True)
class Change:
    """Raw data that is not what was announced before; `identity` is that of its event."""

    identity: str
    seen_at: float  # seconds since 1970
    names: list[str]
    state: dict[str, str]


def sources_of(root: Path) -> tuple[str, ...]:
    """The files and folders that params.yaml names as sources of data sets, sorted."""
    return tuple(sorted({dataset.source for dataset in read_params(root).datasets.values()}))


def data_state(root: Path) -> dict[str, str]:
    """What each .dvc file pins, and an MD5 of what each source holds ("" where it is missing); unchanged files are not read."""
    remembered = {
        source: {name: Seen(*fields) for name, fields in files.items()}
        for source, files in _read(_memory(root, "files")).items()
    }
    seen = {source: _look(root / source, remembered.get(source, {})) for source in sources_of(root)}
    if seen != remembered:
        write_json(_memory(root, "files"), seen)
    hashes = {
        source: directory_md5({name: file.md5 for name, file in files.items()}) if files else ""
        for source, files in seen.items()
    }
    return {**{pin: pinned_md5(root, pin) or "" for pin in pins_of(root)}, **hashes}


def look(root: Path) -> Change | None:
    """The change that is to be announced now, if there is one; the first look only remembers what is there."""
    announced = _read(_memory(root, "announced"))
    if not announced:
        write_json(_memory(root, "announced"), data_state(root))
        return None
    pending = _read(_memory(root, "change"))
    if pending:
        return Change(**pending)
    if data_state(root) == announced:
        return None
    now = _settled(root)
    names = sorted(name for name in {*now, *announced} if now.get(name) != announced.get(name))
    change = Change(_identity(root, announced, now), time.time(), names, now)
    if names:
        write_json(_memory(root, "change"), asdict(change))
    return change if names else None


def announce(root: Path, change: Change, send: Callable[[Change], None]) -> None:
    """Send a change; only when `send` has returned does it count as announced."""
    send(change)
    write_json(_memory(root, "announced"), change.state)
    _memory(root, "change").unlink()


def _settled(root: Path) -> dict[str, str]:
    state = data_state(root)
    while True:
        time.sleep(SETTLED)
        before, state = state, data_state(root)
        if state == before:
            return state


def _identity(root: Path, before: dict[str, str], now: dict[str, str]) -> str:
    """A new one for each change: data that goes back to what it was has changed too."""
    content = json.dumps([str(root), before, now, time.time_ns()], sort_keys=True)
    return str(uuid.UUID(bytes=hashlib.sha256(content.encode()).digest()[:16], version=4))


def _look(source: Path, before: dict[str, Seen]) -> dict[str, Seen]:
    return {name: _seen(path, before.get(name)) for name, path in _files(source)}


def _files(source: Path) -> Iterator[tuple[str, Path]]:
    if source.is_file():
        yield source.name, source
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix != ".partial":
            yield path.relative_to(source).as_posix(), path


def _seen(path: Path, before: Seen | None) -> Seen:
    stat = path.stat()
    if before and before[:3] == (stat.st_size, stat.st_mtime_ns, stat.st_ino):
        return before
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return Seen(stat.st_size, stat.st_mtime_ns, stat.st_ino, md5)


def _memory(root: Path, name: str) -> Path:
    return root / ".genpipe" / "watch" / f"{name}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except FileNotFoundError:
        return {}
    except BadState:  # these files are written whole; one that is not JSON was damaged from outside
        path.unlink()
        return {}
