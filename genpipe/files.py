"""Files that are either whole or not there: write to a temporary name, then rename."""

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, Literal

from genpipe.errors import BadInput, BadState

# What each command writes into its directory, as patterns of names. A directory that holds anything else is not ours.
CODEC = ("codec.json", "vocabulary.json")  # what turns text into ids and back
TOKENIZERS = ("lexicon.tsv", "tokenizer.json")  # copies of the file that defines one
TOKENIZER_HASH = (
    "tokenizer_file.json"  # in counts and vocabularies: the hash of the file that defined the tokenizer
)
WEIGHTS = "weights.safetensors"
FRAMES = "frames.safetensors"  # what the model made of the same noise during its training
MODEL = (WEIGHTS, FRAMES, "recipe.json", "card.md", "data.json", *CODEC, *TOKENIZERS)
TRAINED = (*MODEL, "curve.tsv")
TABLES = ("*.json", "network.pt", "weights.safetensors", "*.jsonl", "*.tsv", "*.npy", "*.parquet")
REPORT = ("index.html",)

UNTRACKED = "__pycache__"  # files of this name, or in a folder of it, are in no hash of genpipe, and .dvcignore names it

BY_PLAN = "run the stage that makes it (genpipe plan names it)"

# temporary names of processes of this machine
REMAINS = re.compile(rf"\..+\.{re.escape(socket.gethostname())}-(?P<pid>\d+)-[0-9a-f]+\.(partial|replaced)")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what was written there takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_name(path, "partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: Path, ours: Collection[str] | None = None) -> Iterator[Path]:
    """An empty temporary directory beside `path`; it replaces `path` when the block ends well.

    `ours` has the patterns of all names that the block may write: BadInput where `path` holds another one, before anything
    is written and again before anything is replaced. Without `ours`, `path` is a place where only genpipe writes.
    """
    require_ours(path, ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_name(path, "partial")
    partial.mkdir()
    try:
        yield partial
        if unknown := _foreign(partial, ours):
            raise ValueError(f"{path}: {unknown} is written there and is not among {ours}")
        require_ours(path, ours)
        replaced = temporary_name(path, "replaced")
        if os.path.lexists(path):
            os.replace(path, replaced)
        os.replace(partial, path)
        _remove(replaced)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_ours(path: Path, ours: Collection[str] | None) -> None:
    """Raise BadInput where `path` is no directory, or one that holds anything but files of the names `ours`."""
    if ours is None or not os.path.lexists(path):
        return
    if not path.is_dir():
        raise BadInput(f"{path}: a file is there, and a directory is to be written; name another")
    if unknown := _foreign(path, ours):
        raise BadInput(
            f"{path}: replacing it would delete {unknown}, which this command did not write; move that, or name another directory"
        )


def _foreign(directory: Path, ours: Collection[str] | None) -> str | None:
    """The first entry of a directory that is no file of the names `ours`."""
    if ours is None:
        return None
    entries = sorted(directory.iterdir())
    is_ours = [e.is_file() and any(fnmatch.fnmatchcase(e.name, name) for name in ours) for e in entries]
    return next((entry.name for entry, known in zip(entries, is_ours, strict=True) if not known), None)


def _remove(path: Path) -> None:
    """Remove a directory and all below it, or a link to one."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def refuse_inputs(out: Path, inputs: Iterable[Path]) -> None:
    """Raise BadInput where writing `out` would change an input: it is one, holds one, or lies below one.

    Files and directories are compared by what they are, so that no link of any kind hides that two names mean the same.
    """
    above = _identities(out)
    own = _identity(out)
    for path in inputs:
        if _identity(path) in above or (own is not None and own in _identities(path)):
            raise BadInput(
                f"{out}: this is the input {path}, or holds it, or lies below it; name another output"
            )


def _identities(path: Path) -> set[tuple[int, int]]:
    """What a path and the directories above it are, as far as they exist."""
    real = path.resolve()
    return {known for place in (real, *real.parents) if (known := _identity(place))}


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and the number of a file; None where there is none."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def temporary_name(path: Path, kind: Literal["partial", "replaced"]) -> Path:
    """A hidden name that nobody else takes: not two threads, and not processes of two machines."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def remove_remains(directory: Path) -> None:
    """Remove what killed processes of this machine have left half-written below a directory."""
    for path in [*directory.rglob(".*.partial"), *directory.rglob(".*.replaced")]:
        found = REMAINS.fullmatch(path.name)
        if found and not Path(f"/proc/{found['pid']}").exists():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_directory(parent: Path, name: str) -> Iterator[Path]:
    """A directory that is gone after the block; those of this name that killed processes of this machine left go too."""
    mine = f"{name}-{socket.gethostname()}"
    for left in parent.glob(f"{mine}-*"):
        pid = left.name.removeprefix(f"{mine}-").partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{mine}-{os.getpid()}-", dir=parent) as directory:
        yield Path(directory)


def private_directory() -> Path:
    """One directory of this user alone below the system's temporary directory, the same in each call.

    BadState where another user has taken its name, or where others may enter it: what they put there would be believed.
    """
    path = Path(tempfile.gettempdir()) / f"genpipe-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()  # not of what a link leads to
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BadState(
            f"{path}: not a directory of this user alone; remove it, or set TMPDIR to another place"
        )
    return path


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(paths: Iterable[Path], root: Path) -> str:
    """One SHA-256 over files and whole directories: their names below `root` and their bytes, in sorted order."""
    files: set[Path] = set()
    for path in paths:
        files.update(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else files.add(path)
    kept = (f for f in files if UNTRACKED not in f.parts)
    lines = [f"{file.relative_to(root).as_posix()} {sha256(file)}\n" for file in sorted(kept)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_hidden(path: PurePath) -> bool:
    """Whether a path, given below its source, is passed over: a part begins with a dot, or is in no hash of genpipe."""
    return any(part.startswith(".") or part in (UNTRACKED, "__MACOSX") for part in path.parts)


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also of numbers and lists as long as no reader takes them
        raise BadState(
            f"{path}: not valid JSON: {error}; write it again by running the stage that makes it"
        ) from None


def read_description(directory: Path, remedy: str = BY_PLAN) -> dict[str, Any]:
    """What data.json says of a directory that `genpipe prepare` or `genpipe encode` wrote: its kind, splits and facts."""
    path = existing(directory / "data.json", remedy)
    match read_json(path):
        case {"kind": str(), "splits": [_, *_] as splits, "facts": dict()} as described:
            if all(isinstance(split, str) for split in splits):
                return described
    raise BadState(
        f"{path}: must have kind (a text), splits (a list of texts, one at least) and facts (an object); {remedy}"
    )


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with sorted keys, whole or not at all; equal values give equal bytes."""
    with new_file(path) as partial:
        partial.write_text(
            json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )


def existing(path: Path, remedy: str) -> Path:
    """`path` itself, or the error that it is missing and what makes it."""
    if not os.path.exists(path):  # False also for a name that is too long
        raise BadState(f"{path}: no such file or directory; {remedy}")
    return path
