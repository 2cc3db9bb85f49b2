"""Where the files of a training are: on a disk, or in an object store that fsspec knows."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from genpipe.errors import BadInput, Unavailable
from genpipe.files import new_file

STREAM = "metrics.jsonl"  # below the directory of a run: what people and progress bars watch


class RunFiles(Protocol):
    """The files of a training, here or where another process keeps them."""

    directory: Path
    place: str

    def begin(self, rows: bytes) -> None:
        """The stream of metrics goes on after `rows`."""
        ...

    def append(self, rows: bytes) -> None:
        """Add to the stream."""
        ...

    def streamed(self) -> bytes:
        """The stream so far, where this machine has one."""
        ...

    def names(self, directory: str) -> list[str]:
        """The stored files below a directory, as DIRECTORY/FILE, in order."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Store a file, whole or not at all; it outlives a power cut."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file."""
        ...

    def remove(self, name: str) -> None:
        """Drop a file, or a directory and all below it."""
        ...


class Run:
    """The files of one training: the stream of its metrics on this disk, everything else in `storage`."""

    def __init__(self, directory: Path, storage: str | None = None) -> None:
        """`storage` is a directory or the URL of one; without it, files lie in `directory`."""
        self.directory = directory
        self.storage = storage
        self.place = f"{storage.rstrip('/')}/{directory.name}" if storage else str(directory)
        self._files: AbstractFileSystem = LocalFileSystem()
        self._root = self.place
        if storage and "://" in storage:
            try:
                self._files, self._root = fsspec.url_to_fs(self.place)
            except (ImportError, ValueError, OSError) as error:
                raise BadInput(
                    f"cluster.storage: must be a directory or a URL, not {storage}: {error}"
                ) from None

    def begin(self, rows: bytes) -> None:
        """The stream of metrics goes on after `rows`."""
        with _reported(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / STREAM).write_bytes(rows)

    def append(self, rows: bytes) -> None:
        """Add to the stream."""
        with _reported(self.directory), (self.directory / STREAM).open("ab") as file:
            file.write(rows)

    def streamed(self) -> bytes:
        """The stream so far, where this machine has one."""
        stream = self.directory / STREAM
        with _reported(self.directory):
            return stream.read_bytes() if stream.exists() else b""

    def names(self, directory: str) -> list[str]:
        """The stored files below a directory, as DIRECTORY/FILE, in order."""
        place = f"{self._root}/{directory}"
        with _reported(self.place):
            found = self._files.find(place) if self._files.exists(place) else []
        return sorted(os.path.relpath(path, self._root) for path in found)

    def write(self, name: str, content: bytes) -> None:
        """Store a file, whole or not at all; it outlives a power cut."""
        path = f"{self._root}/{name}"
        with _reported(self.place):
            if isinstance(self._files, LocalFileSystem):
                _write_durably(Path(path), content)
            else:
                self._files.pipe_file(path, content)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with _reported(self.place):
            return cast(bytes, self._files.cat_file(f"{self._root}/{name}"))

    def remove(self, name: str) -> None:
        """Drop a file, or a directory and all below it, where it is still there."""
        with _reported(self.place), contextlib.suppress(FileNotFoundError):
            self._files.rm(f"{self._root}/{name}", recursive=True)


@contextlib.contextmanager
def _reported(place: Path | str) -> Iterator[None]:
    """Where the files of a run cannot be read or written, say so in one line."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise Unavailable(
            f"{place}: the files of the run cannot be read or written: {reason}; fix that and run it again"
        ) from error


def _write_durably(path: Path, content: bytes) -> None:
    with new_file(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)  # the new name, too, must outlive a power cut
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
