"""Shards: byte ranges of text files that end on a document boundary, so that workers read their own part."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.files import existing


@dataclass(frozen=True)
class Shard:
    """Bytes `start` (included) to `end` (excluded) of a file; both are document boundaries."""

    file: Path
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes in the shard."""
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.file}: bytes {self.start} to {self.end}"


def cut(file: Path, shard_bytes: int) -> list[Shard]:
    """Shards of at least `shard_bytes` bytes (the last one may be smaller) that cover the file once."""
    _check(file, shard_bytes)
    shards: list[Shard] = []
    with file.open("rb") as lines:
        start = len(codecs.BOM_UTF8) if lines.read(3) == codecs.BOM_UTF8 else 0  # a mark of Windows, no text
        size = lines.seek(0, 2)
        while start < size:
            lines.seek(min(start + shard_bytes, size) - 1)  # - 1: a newline that ends here is the boundary
            lines.readline()
            end = min(lines.tell(), size)
            shards.append(Shard(file, start, end))
            start = end
    return shards


def read(shard: Shard) -> bytes:
    """The bytes of a shard."""
    with shard.file.open("rb") as file:
        file.seek(shard.start)
        data = file.read(shard.size)
    if len(data) < shard.size:
        raise BadInput(
            f"{shard}: only {len(data)} bytes are there; the file got shorter meanwhile, run this again"
        )
    return data


def documents(shard: Shard, data: bytes, field: str) -> Iterator[str]:
    """The texts in the bytes of a shard: its lines, or the `field` of its JSON records (blank lines are none)."""
    lines = _decode(shard, data).split("\n")
    if not lines[-1]:
        lines.pop()  # the last document ends with a newline; it does not begin another
    if shard.file.suffix == ".txt":
        yield from (line.removesuffix("\r") for line in lines)
        return
    for number, line in enumerate(lines):
        if line and not line.isspace():
            yield _field(line, field, shard, number)


def _check(file: Path, shard_bytes: int) -> None:
    existing(file, "name a .txt or .jsonl file that exists")
    if not file.is_file() or file.suffix not in (".txt", ".jsonl"):
        raise BadInput(f"{file}: wanted a .txt file (a document a line) or a .jsonl file (a record a line)")
    if shard_bytes < 1:
        raise BadInput(f"shard_bytes: wanted 1 or more, not {shard_bytes}")


def _decode(shard: Shard, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        offset = shard.start + error.start
        raise BadInput(
            f"{shard.file}: wanted UTF-8, but byte {offset} is 0x{data[error.start]:02x}; "
            "convert the file first, for example: iconv -f GB18030 -t UTF-8 OLD > NEW"
        ) from None


def _field(line: str, field: str, shard: Shard, number: int) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise BadInput(
            f"{_place(shard, number)}: wanted a JSON record, {error}; mend or delete the line"
        ) from None
    if not isinstance(record, dict) or field not in record:
        has = (
            ", ".join(map(str, record))
            if isinstance(record, dict)
            else f"no record but {type(record).__name__}"
        )
        raise BadInput(
            f"{_place(shard, number)}: no field {field!r}; the line has: {has}; name the field with the text"
        )
    return _text(record[field], field, shard, number)


def _text(value: object, field: str, shard: Shard, number: int) -> str:
    parts = value if isinstance(value, list) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise BadInput(
            f"{_place(shard, number)}: field {field!r}: wanted a string or a list of strings, "
            f"not {json.dumps(value)[:40]}; mend the line or name another field"
        )
    text = "\n".join(texts)
    try:
        text.encode()  # "\\ud800" is valid JSON, yet half a character
    except UnicodeEncodeError:
        raise BadInput(
            f"{_place(shard, number)}: field {field!r} has half a surrogate pair; mend the line"
        ) from None
    return text


def _place(shard: Shard, number: int) -> str:
    with shard.file.open("rb") as file:
        before = file.read(shard.start).count(b"\n")
    return f"{shard.file}: line {before + number + 1}"
