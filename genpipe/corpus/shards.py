"""Shards: parts of an input that end on a document boundary, so that workers read their own part."""

import codecs
import contextlib
import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson
import polars as pl

from genpipe.corpus.inputs import Input, open_input
from genpipe.errors import BadInput

TABLES = ("parquet", "dataset")


@dataclass(frozen=True)
class Shard:
    """`start` (included) to `end` (excluded) of an input: rows of a table, bytes of a file, both at a boundary."""

    input: Input
    start: int
    end: int
    size: int  # bytes, for progress: stored ones of a file, unpacked ones of a table's column

    def __str__(self) -> str:
        if _is_whole(self.input):
            return self.input.path
        unit = "rows" if self.input.kind in TABLES else "bytes"
        return f"{self.input.path}: {unit} {self.start} to {self.end}"


def cut(input: Input, shard_bytes: int) -> list[Shard]:
    """Shards that cover the input once, of about `shard_bytes` bytes where it can be cut."""
    if shard_bytes < 1:
        raise BadInput(f"shard_bytes: must be 1 or more, not {shard_bytes}")
    if input.kind in TABLES:
        from genpipe.corpus.tables import cut_rows  # and with it PyArrow

        return [Shard(input, start, end, size) for start, end, size in cut_rows(input, shard_bytes)]
    if _is_whole(input):
        return [_cut_whole(input)]
    return _cut_lines(input, shard_bytes)


def read(shard: Shard) -> "Content":
    """What the shard holds."""
    if shard.input.kind in TABLES:
        from genpipe.corpus.tables import read_rows

        return Content(shard, read_rows(shard.input, shard.start, shard.end))
    data = _read_bytes(shard)
    if shard.start == 0 and data.startswith(codecs.BOM_UTF8):  # a mark of Windows, no text
        return Content(shard, [data.removeprefix(codecs.BOM_UTF8)], skipped=len(codecs.BOM_UTF8))
    return Content(shard, [data])


class Content:
    """The bytes of a shard: one part of a file, or a part a row of a table."""

    def __init__(self, shard: Shard, parts: Sequence[bytes], *, skipped: int = 0) -> None:
        self.shard = shard
        self.parts = parts
        self.skipped = skipped  # bytes of the file before the first part
        self.replaced = 0  # undecodable sequences of bytes that `documents` replaced by U+FFFD

    def digest(self) -> str:
        """SHA-256 of the bytes and of how they are read, not of where they stand: equal content shares it."""
        how = self.shard.input
        digest = hashlib.sha256(repr((how.kind, how.field, how.errors)).encode())
        for part in self.parts:
            digest.update(len(part).to_bytes(8, "little"))  # or rows "ab", "c" would equal "a", "bc"
            digest.update(part)
        return digest.hexdigest()

    def blocks(self, size: int) -> Iterator[pl.Series]:
        """The documents, some at a time: of about `size` bytes, or one document."""
        texts = self.documents()
        ends = texts.str.len_bytes().cast(pl.Int64).cum_sum()
        start = 0
        while start < len(texts):
            before = ends[start - 1] if start else 0
            end = max(start + 1, ends.search_sorted(before + size, side="right"))
            yield texts[start:end]
            start = end

    def documents(self) -> pl.Series:
        """The texts: rows, lines, a file, or the field of JSON records (blank lines are none)."""
        self.replaced = 0
        kind = self.shard.input.kind
        if kind not in ("lines", "jsonl"):
            return self._texts()
        lines = self._lines()
        if kind == "lines":
            return lines
        records = (
            (number, line) for number, line in enumerate(lines.to_list()) if line and not line.isspace()
        )
        return pl.Series([_field(line, self.shard, number) for number, line in records], dtype=pl.String)

    def _texts(self) -> pl.Series:
        """Each part as a text."""
        try:
            return pl.Series(self.parts, dtype=pl.Binary).cast(pl.String)
        except pl.exceptions.ComputeError:  # not all of it is UTF-8
            return pl.Series([self._decode(*part) for part in enumerate(self.parts)], dtype=pl.String)

    def _lines(self) -> pl.Series:
        """The lines of the one part, without their \n or \r\n; none begins after the last newline."""
        (part,) = self.parts
        try:
            return _cut_at_newlines(part)
        except pl.exceptions.ComputeError:  # not all of it is UTF-8
            return _cut_at_newlines(self._decode(0, part).encode())

    def _decode(self, number: int, part: bytes) -> str:
        try:
            return part.decode("utf-8")
        except UnicodeDecodeError as error:
            if self.shard.input.errors == "strict":
                raise self._undecodable(number, part, error.start) from None
        text = part.decode("utf-8", "replace")
        # UTF-8 cannot hide a U+FFFD of the text itself inside a broken sequence, so the rest are ours
        self.replaced += text.count("\ufffd") - part.count("\ufffd".encode())
        return text

    def _undecodable(self, number: int, part: bytes, at: int) -> BadInput:
        how = self.shard.input
        if how.kind in TABLES:
            place, byte = f"{how.path}: row {self.shard.start + number} (from 0)", at
        else:
            place, byte = how.path, self.shard.start + self.skipped + at
        unpacked = " of the unpacked file" if how.compression else ""
        return BadInput(
            f"{place}: not valid UTF-8: byte {byte}{unpacked} is 0x{part[at]:02x}; convert the file first, "
            "for example: iconv -f GB18030 -t UTF-8 OLD > NEW; or genpipe count --errors replace"
        )


def _cut_at_newlines(data: bytes) -> pl.Series:
    # the first line is ours: polars unpacks what begins as a gzip, zlib or zstd file does, and x^ is good zlib
    return pl.scan_lines(b"\n" + data).collect(engine="streaming").to_series()[1:]


def _is_whole(input: Input) -> bool:
    return input.kind == "file" or input.compression is not None


def _cut_whole(input: Input) -> Shard:
    size = 0  # what a stream has for it: the length of a whole input is only for progress
    with open_input(input) as file, contextlib.suppress(ValueError):
        size = file.seek(0, 2)
    return Shard(input, 0, size, size)


def _cut_lines(input: Input, shard_bytes: int) -> list[Shard]:
    shards: list[Shard] = []
    with open_input(input) as lines:
        size = lines.seek(0, 2)
        start = 0
        while start < size:
            lines.seek(min(start + shard_bytes, size) - 1)  # - 1: a newline that ends here is the boundary
            lines.readline()
            end = min(lines.tell(), size)
            shards.append(Shard(input, start, end, end - start))
            start = end
    return shards


def _read_bytes(shard: Shard) -> bytes:
    with open_input(shard.input) as file:
        if _is_whole(shard.input):
            return _unpack(file.read(), shard.input)
        file.seek(shard.start)
        data = file.read(shard.size)
    if len(data) < shard.size:
        raise BadInput(
            f"{shard}: only {len(data)} bytes are there; the file got shorter meanwhile, run this again"
        )
    return data


def _unpack(data: bytes, input: Input) -> bytes:
    if input.compression is None:
        return data
    if not data:
        raise EOFError("it is empty")  # both libraries would take it for an empty text
    if input.compression == "gzip":
        return gzip.decompress(data)
    import pyarrow as pa

    return pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()


def _field(line: str, shard: Shard, number: int) -> str:
    field = shard.input.field
    # four times as fast as json; what it does not take may still be good, or is reported below
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
        value = orjson.loads(line)[field]
        if isinstance(value, str):
            return value
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{_place(shard, number)}: not a JSON record: {error}; fix or delete the line"
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
    return _text(record[field], shard, number)


def _text(value: object, shard: Shard, number: int) -> str:
    field = shard.input.field
    parts = value if isinstance(value, list) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise BadInput(
            f"{_place(shard, number)}: field {field!r}: must be a string or a list of strings, "
            f"not {json.dumps(value)[:40]}; fix the line or name another field"
        )
    text = "\n".join(texts)
    try:
        text.encode()  # "\\ud800" is valid JSON, yet half a character
    except UnicodeEncodeError:
        raise BadInput(
            f"{_place(shard, number)}: field {field!r} has half a surrogate pair; fix the line"
        ) from None
    return text


def _place(shard: Shard, number: int) -> str:
    try:
        with open_input(shard.input) as file:
            before = file.read(shard.start).count(b"\n")
    except BadInput:  # not on this machine
        return f"{shard}: line {number + 1} of it"
    return f"{shard.input.path}: line {before + number + 1}"
