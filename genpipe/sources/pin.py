"""The .dvc files that pin raw data: what they say, and whether data/ is that, byte for byte."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from genpipe import yaml_text
from genpipe.dvc_command import DvcFailed, dvc
from genpipe.errors import BadState, GenpipeError, Unavailable
from genpipe.files import read_json, write_json
from genpipe.progress import tell


class Seen(NamedTuple):
    """A file as it was when its bytes were hashed."""

    size: int
    mtime_ns: int
    inode: int
    md5: str


def pins_of(root: Path) -> list[str]:
    """The .dvc files of a project, below its root: each lies beside what it pins, in the root or in data/."""
    found = (path for pattern in ("*.dvc", "data/*.dvc") for path in root.glob(pattern))
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


def pinned_md5(root: Path, pin: str) -> str | None:
    """The hash in a .dvc file, such as "8a1f….dir"; None where there is no such file."""
    path = root / pin
    if not path.exists():
        return None
    try:
        (out,) = yaml_text.read(path)["outs"]
        return str(out["md5"])
    except (GenpipeError, KeyError, TypeError, ValueError):
        raise BadState(
            f"{path}: must have one output with an md5, as `dvc add` writes it; git checkout {pin}"
        ) from None


def directory_md5(files: dict[str, str]) -> str:
    """DVC's hash of a directory: of the JSON list of its files (path below it -> md5), in the order of their paths."""
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    return (
        hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    )


def look(root: Path, parts: Iterable[str]) -> dict[str, Seen]:
    """Every file of these directories of data/ with its md5; a file that is as it was remembered is not read again."""
    remembered = _remembered(root)
    data = root / "data"
    files = (path for part in parts for path in (data / part).rglob("*"))
    return {
        (name := path.relative_to(data).as_posix()): _seen(path, remembered.get(name))
        for path in sorted(files)
        if path.is_file() and path.suffix != ".partial"
    }


def remember(root: Path, seen: dict[str, Seen]) -> None:
    """Keep what was seen, so that the next look is quick and can name what changed."""
    write_json(_memory(root), _remembered(root) | seen)


def verify(root: Path, part: str, seen: dict[str, Seen], rewritten: bool) -> bool:
    """Whether data/PART is what data/PART.dvc pins; False where there is no such pin, BadState where it differs."""
    pin = f"data/{part}.dvc"
    wanted = pinned_md5(root, pin)
    if wanted is None:
        return False
    own = {name: file for name, file in seen.items() if name.startswith(f"{part}/")}
    found = directory_md5({name.removeprefix(f"{part}/"): file.md5 for name, file in own.items()})
    if found == wanted:
        return True
    remedy = f"`dvc pull {pin}` or `git checkout {pin}`" if rewritten else "`genpipe data --force`"
    raise BadState(
        f"data/{_changed(root, part, own)} differs from {pin}: its md5 is {found}, and must be {wanted}; fix it with {remedy}"
    )


def give_to_dvc(root: Path, part: str) -> None:
    """Put data/PART into DVC's cache, so that `dvc status` is clean and `dvc push` has what it needs."""
    pin = f"data/{part}.dvc"
    wanted = pinned_md5(root, pin) or ""
    listing = root / ".dvc" / "cache" / "files" / "md5" / wanted[:2] / wanted[2:]
    if not (root / ".dvc").is_dir() or listing.exists():
        return
    tell(f"data/{part}: adding it to the cache of DVC")
    command = ["commit", "--force", "--no-relink", "--quiet", pin]
    try:
        dvc(root, "--wait-for-lock", *command)
    except DvcFailed as error:
        raise Unavailable(
            f"data/{part} is up to date, but `dvc {' '.join(command)}` failed: {error}; run this command again"
        ) from None


def _memory(root: Path) -> Path:
    return root / ".genpipe" / "data.json"


def _remembered(root: Path) -> dict[str, Seen]:
    try:
        return {name: Seen(*fields) for name, fields in read_json(_memory(root)).items()}
    except (FileNotFoundError, BadState, AttributeError, TypeError):
        return {}  # it only saves time: without it every file is read


def _seen(path: Path, before: Seen | None) -> Seen:
    stat = path.stat()
    if before and before[:3] == (stat.st_size, stat.st_mtime_ns, stat.st_ino):
        return before
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return Seen(stat.st_size, stat.st_mtime_ns, stat.st_ino, md5)


def _changed(root: Path, part: str, seen: dict[str, Seen]) -> str:
    """The files of a part that are not as they were when it was last right; the part where that is not known."""
    before = {n: file for n, file in _remembered(root).items() if n.startswith(f"{part}/")}
    then, now = ({name: file.md5 for name, file in files.items()} for files in (before, seen))
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return ", data/".join(names) if before and names else part
