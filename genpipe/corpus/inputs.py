"""Inputs: what the names on a command line stand for, and how the bytes of one are opened.

A name is a file, a glob, a folder, a URL, a data set on disk, or `hf://NAME:SPLIT`. The inputs come in the order of the
names, and sorted within a name, so that the same names give the same shards.
"""

import contextlib
import os
import re
import socket
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

from genpipe.errors import BadInput, Unavailable
from genpipe.files import is_hidden

Kind = Literal["lines", "file", "jsonl", "parquet", "dataset"]
Compression = Literal["gzip", "zstd"]
Errors = Literal["strict", "replace"]
Found = tuple[str, Kind, Compression | None]

KINDS: dict[str, Kind] = {".txt": "lines", ".jsonl": "jsonl", ".parquet": "parquet"}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
KNOWN = "a .txt file (a document a line), .jsonl (a record a line), either also with .gz or .zst, or .parquet"
HUB = "hf://"
ALTERNATIVES = re.compile(r"\{([^{},]*(?:,[^{},]*)+)\}")
NO_ANSWER = (ConnectionError, TimeoutError, socket.gaierror)


@dataclass(frozen=True)
class Input:
    """A source of documents, resolved: what a worker needs to open it."""

    path: str  # absolute local path, a URL that fsspec opens, or a data set on disk: its directory or an Arrow file
    kind: Kind
    field: str  # of records, column of tables; "" for text
    compression: Compression | None
    errors: Errors

    @property
    def local_path(self) -> Path | None:
        """Where it is, unless at a URL."""
        return None if "://" in self.path else Path(self.path)


def find_inputs(
    names: Sequence[str], *, field: str = "text", whole_files: bool = False, errors: Errors = "strict"
) -> list[Input]:
    """The inputs that `names` stand for; with `whole_files` a .txt file is one document."""
    inputs: list[Input] = []
    for path, kind, compression in (found for name in names for found in _find(name)):
        if kind == "lines":
            inputs.append(Input(path, "file" if whole_files else "lines", "", compression, errors))
        else:
            inputs.append(Input(path, kind, field, compression, errors))
    return inputs


@contextlib.contextmanager
def open_input(input: Input) -> Iterator[BinaryIO]:
    """The bytes of an input as they are stored; what is wrong with them is a BadInput."""
    with readable(input):
        if "://" in input.path:
            with _open_url(input.path) as file:
                yield file
        else:
            with open(input.path, "rb") as file:  # several times as fast as fsspec's own local files
                yield file


@contextlib.contextmanager
def readable(input: Input) -> Iterator[None]:
    """Turns what the libraries say of a missing or broken file into a BadInput."""
    try:
        yield
    except FileNotFoundError as error:
        _require_answer(input.path, error)
        raise BadInput(
            f"{input.path}: no such file any more, or not on this machine; put it back and run this again"
        ) from None
    except _faults() as error:
        _require_answer(input.path, error)
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault: PyArrow and gzip give no number to broken content
        kind = input.compression or input.kind
        raise BadInput(
            f"{input.path}: not a whole {kind} file: {_line(error)}; fetch or write it again"
        ) from None


def _require_answer(name: str, error: BaseException) -> None:
    """Raise Unavailable where a URL cannot be read because its server does not answer."""
    cause: BaseException | None = error
    while (
        "://" in name and cause is not None
    ):  # fsspec raises FileNotFoundError from the error of the connection
        if isinstance(cause, NO_ANSWER):
            raise Unavailable(
                f"{name}: no answer ({_line(cause)}); check the name and the network, and try again"
            )
        cause = cause.__cause__


def _faults() -> tuple[type[Exception], ...]:
    import pyarrow as pa  # takes longer than counting a small file

    return pa.ArrowException, EOFError, zlib.error, OSError


@contextlib.contextmanager
def _open_url(url: str) -> Iterator[BinaryIO]:
    import pyarrow as pa

    fs, path = _file_system(url)
    try:
        with fs.open(path, "rb") as file:
            yield file
    except pa.ArrowException:  # some are ValueErrors too
        raise
    except ValueError:  # what fsspec says when a server cannot send a part of a file
        raise BadInput(
            f"{url}: this server sends the file only as a whole, and parts of it are read; download it first"
        ) from None


def _find(name: str) -> list[Found]:
    if name.startswith(HUB):
        return _find_on_hub(name)
    if "://" not in name and os.path.isfile(name):
        return [_known(os.path.abspath(name))]
    fs, path = _file_system(name)
    if (found := ALTERNATIVES.search(path)) and not fs.exists(path):
        names = [name.replace(found[0], part, 1) for part in found[1].split(",")]
        # sorted within a name, whatever the order of its alternatives, and none twice
        return sorted({one for each in names for one in _find(each)}, key=itemgetter(0))
    if _first_of_pattern(name, path) is not None and not fs.exists(path):
        return _find_glob(fs, path, name)
    try:
        info: dict[str, Any] = fs.info(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        _require_answer(name, error)
        raise BadInput(f"{name}: no such file or directory; name {KNOWN}, or a folder of them") from None
    if info["type"] != "directory":
        return [_known(_full(fs, path))]
    local = Path(path)
    if _is_local(fs) and (local / "dataset_dict.json").exists():
        splits = [str(folder.parent) for folder in sorted(local.glob("*/state.json"))]
        raise BadInput(
            f"{name}: this directory holds one data set for each split; name {' or '.join(splits)}"
        )
    if _is_local(fs) and (local / "state.json").exists():
        return [(path, "dataset", None)]
    return _find_below(fs, path, name)


def _find_glob(fs: Any, pattern: str, name: str) -> list[Found]:
    base = pattern[: _first_of_pattern(name, pattern)].rpartition("/")[0]
    matched = fs.glob(pattern, detail=True)
    files = [p for p, info in matched.items() if info["type"] != "directory" and not _hidden(p, base)]
    if not files:
        raise BadInput(f"{name}: no file matches; name {KNOWN}")
    return [_known(_full(fs, path)) for path in sorted(files)]


def _first_of_pattern(name: str, path: str) -> int | None:
    """Where a path begins to be a pattern, if it does; in the address of a web page ? begins a query."""
    special = "*" if name.startswith(("http://", "https://")) else "*?["
    return next((place for place, character in enumerate(path) if character in special), None)


def _find_below(fs: Any, folder: str, name: str) -> list[Found]:
    files = [path for path in fs.find(folder) if _suffixes(path) and not _hidden(path, folder)]
    if not files:
        raise BadInput(f"{name}: no known file in this folder or below it; put {KNOWN} there")
    return [_known(_full(fs, path)) for path in sorted(files)]


def _find_on_hub(name: str) -> list[Found]:
    from datasets import DatasetDict, load_dataset  # takes a second

    path, _, split = name.removeprefix(HUB).partition(":")
    if "[" in split:
        raise BadInput(f"{name}: a slice of a split cannot be counted; name it without [...]")
    try:
        found = load_dataset(path, split=split or None)
    except (OSError, ValueError) as error:
        _require_answer(name, error)
        raise BadInput(
            f"{name}: cannot be loaded ({_line(error)}); see to the name and the network, or name local files"
        ) from None
    if isinstance(found, DatasetDict):
        if len(found) > 1:
            raise BadInput(
                f"{name}: it has several splits; name {' or '.join(f'{HUB}{path}:{key}' for key in found)}"
            )
        (found,) = found.values()
    return [(file["filename"], "dataset", None) for file in found.cache_files]


def _file_system(name: str) -> tuple[Any, str]:
    if "::" in name:
        raise BadInput(f"{name}: a chain of URLs cannot be read; unpack or download it first")
    import fsspec  # takes longer than counting a small file

    try:
        return fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:  # no driver; no such protocol
        raise BadInput(f"{name}: cannot be opened here: {_line(error)}; or download it first") from None


def _is_local(fs: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def _full(fs: Any, path: str) -> str:
    return path if _is_local(fs) else fs.unstrip_protocol(path)


def _known(full: str) -> Found:
    suffixes = _suffixes(full)
    if suffixes is None:
        raise BadInput(f"{full}: not a known kind of file; name {KNOWN}")
    return full, *suffixes


def _suffixes(path: str) -> tuple[Kind, Compression | None] | None:
    parts = [f".{part.lower()}" for part in path.rpartition("/")[2].split(".")[1:]]
    compression = COMPRESSIONS.get(parts[-1]) if parts else None
    if compression:
        parts.pop()
    kind = KINDS.get(parts[-1]) if parts else None
    if kind is None or (compression and kind == "parquet"):
        return None
    return kind, compression


def _hidden(path: str, base: str) -> bool:
    return is_hidden(PurePosixPath(path.removeprefix(base)))


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
