"""The files in a Debian package: an `ar` archive that holds one tar archive of all files.

Reference: deb(5). Its members are debian-binary, control.tar.* and data.tar.*; each has a header of 60 bytes and begins at
an even offset.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from genpipe.errors import BadInput

MAGIC = b"!<arch>\n"
HEADER = re.compile(rb"(?P<name>.{16}).{32}(?P<size>[0-9 ]{10})`\n", re.DOTALL)


def read_deb(path: Path, name: str) -> bytes:
    """One file of a package, named as it is installed without the first slash. Raises BadInput where it is not there."""
    data = next((content for member, content in _members(path) if member.startswith("data.tar")), None)
    if data is None:
        raise BadInput(f"{path}: not a Debian package: there is no data.tar in it; fetch it again")
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            file = tar.extractfile(f"./{name}")
            if file is not None:
                return file.read()
    except (tarfile.TarError, KeyError, EOFError):
        pass
    raise BadInput(f"{path}: no file {name} can be read in it; fetch it again, or name another package")


def read_all(path: Path) -> Iterator[tuple[str, bytes]]:
    """All files of a package, named as ./usr/…. Raises BadInput where it is not one."""
    data = next((content for member, content in _members(path) if member.startswith("data.tar")), None)
    if data is None:
        raise BadInput(f"{path}: not a Debian package: there is no data.tar in it; fetch it again")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file.read()


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    content = path.read_bytes()
    place = len(MAGIC)
    while content.startswith(MAGIC) and (header := HEADER.match(content, place)):
        size = int(header["size"].strip() or 0)
        yield (
            header["name"].decode("ascii", "replace").rstrip(" /"),
            content[header.end() : header.end() + size],
        )
        place = header.end() + size + size % 2
