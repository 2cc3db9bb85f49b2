"""Where the files of a training are: on a disk, or in an object store that fsspec knows."""

import os
from pathlib import Path
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from genpipe.errors import BadInput
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

    def names(self) -> list[str]:
        """All stored files, as DIRECTORY/FILE."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Store a file, whole or not at all; it outlives a power cut."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file."""
        ...

    def remove(self, directory: str) -> None:
        """Drop a directory and all below it."""
        ...


class Run:
    """The files of one training: the stream of its metrics on this disk, everything else in `storage`."""

    def __init__(self, directory: Path, storage: str | None = None) -> None:
        """`storage` is a directory or the URL of one; without it, files lie in `directory`."""
        self.directory = directory
        self.storage = storage
        self.place = f"{storage.rstrip('/')}/{directory.name}" if storage else str(directory)
        try:
            self._files, self._root = fsspec.url_to_fs(self.place)
        except (ImportError, ValueError, OSError) as error:
            raise BadInput(f"cluster.storage: wanted a directory or a URL, {storage}: {error}") from None

    def begin(self, rows: bytes) -> None:
        """The stream of metrics goes on after `rows`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / STREAM).write_bytes(rows)

    def append(self, rows: bytes) -> None:
        """Add to the stream."""
        with (self.directory / STREAM).open("ab") as file:
            file.write(rows)

    def names(self) -> list[str]:
        """All stored files, as DIRECTORY/FILE."""
        if not self._files.exists(self._root):
            return []
        found = self._files.find(self._root)
        return sorted(os.path.relpath(path, self._root) for path in found)

    def write(self, name: str, content: bytes) -> None:
        """Store a file, whole or not at all; it outlives a power cut."""
        path = f"{self._root}/{name}"
        if not isinstance(self._files, LocalFileSystem):
            self._files.pipe_file(path, content)
            return
        with new_file(Path(path)) as partial, partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def read(self, name: str) -> bytes:
        """The content of a file."""
        try:
            return self._files.cat_file(f"{self._root}/{name}")
        except OSError as error:
            raise BadInput(f"{self.place}/{name}: cannot be read: {error}") from None

    def remove(self, directory: str) -> None:
        """Drop a directory and all below it."""
        self._files.rm(f"{self._root}/{directory}", recursive=True)
