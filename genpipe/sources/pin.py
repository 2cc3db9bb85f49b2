"""data.dvc, the pin of data/: what it says, and whether data/ is that, byte for byte."""

import hashlib
import json
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


def pinned_md5(root: Path) -> str | None:
    """The directory hash in data.dvc, such as "8a1f….dir"; None where there is no data.dvc."""
    path = root / "data.dvc"
    if not path.exists():
        return None
    try:
        (out,) = yaml_text.read(path)["outs"]
        return str(out["md5"])
    except (GenpipeError, KeyError, TypeError, ValueError):
        raise BadState(
            f"{path}: must have one output with an md5, as `dvc add data` writes it; git checkout data.dvc"
        ) from None


def directory_md5(files: dict[str, str]) -> str:
    """DVC's hash of a directory: of the JSON list of its files (path below it -> md5), in the order of their paths."""
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    return (
        hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    )


def look(root: Path) -> dict[str, Seen]:
    """Every file of data/ with its md5; a file that is as it was remembered is not read again."""
    remembered = _remembered(root)
    data = root / "data"
    files = (path for path in data.rglob("*") if path.is_file() and path.suffix != ".partial")
    return {
        (name := path.relative_to(data).as_posix()): _seen(path, remembered.get(name))
        for path in sorted(files)
    }


def remember(root: Path, seen: dict[str, Seen]) -> None:
    """Keep what was seen, so that the next look is quick and can name what changed."""
    write_json(_memory(root), seen)


def verify(root: Path, wanted: str, seen: dict[str, Seen], parts: set[str], rewritten: bool) -> bool:
    """Whether data.dvc pins all of data/; False if only the `parts` of it, and an error if not even those."""
    if directory_md5({name: file.md5 for name, file in seen.items()}) == wanted:
        return True
    written = {name: file.md5 for name, file in seen.items() if name.split("/")[0] in parts}
    found = directory_md5(written)
    if found == wanted:
        others = sorted({name.split("/")[0] for name in seen} - parts)
        tell(
            f"data/{', data/'.join(others)}: left alone, but data.dvc does not pin it; keep your own data outside data/"
        )
        return False
    remedy = "`dvc pull data.dvc` or `git checkout data.dvc`" if rewritten else "`genpipe data --force`"
    raise BadState(
        f"data/{_changed(root, seen)} differs from data.dvc: its md5 is {found}, and must be {wanted}; fix it with {remedy}"
    )


def give_to_dvc(root: Path, wanted: str) -> None:
    """Put data/ into DVC's cache, so that `dvc status` is clean and `dvc push` has what it needs."""
    listing = root / ".dvc" / "cache" / "files" / "md5" / wanted[:2] / wanted[2:]
    if not (root / ".dvc").is_dir() or listing.exists():
        return
    tell("data: adding it to the cache of DVC")
    command = ["commit", "--force", "--no-relink", "--quiet", "data.dvc"]
    try:
        dvc(root, "--wait-for-lock", *command)
    except DvcFailed as error:
        raise Unavailable(
            f"data/ is up to date, but `dvc {' '.join(command)}` failed: {error}; run this command again"
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


def _changed(root: Path, seen: dict[str, Seen]) -> str:
    """The files that are not as they were when data/ was last right; nothing where that is not known."""
    before = _remembered(root)
    then, now = ({name: file.md5 for name, file in files.items()} for files in (before, seen))
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return ", data/".join(names) if before else ""
