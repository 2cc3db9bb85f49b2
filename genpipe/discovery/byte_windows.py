"""Texts as one array of bytes, cut into rows, and the windows of up to six bytes at each of its places.

A row is a line with the newlines behind it: BytePiece (archives/9752) cuts texts there too, so that no piece goes on
behind a newline. A line of more than MOST_BYTES is cut before a character; where depends on its document alone.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

ORDER = 6  # bytes of the longest n-gram
MOST_BYTES = 4096  # of a row
NEWLINE = 0x0A

Bytes = np.ndarray  # u8
Numbers = np.ndarray  # i64 or u64


@dataclass(frozen=True)
class Rows:
    """The UTF-8 bytes of some documents one behind another, and where rows begin."""

    data: Bytes  # [bytes]
    starts: Numbers  # [rows], ascending; none is empty
    documents: Numbers  # [rows], the index of the document of each

    @property
    def lengths(self) -> Numbers:
        """Bytes of each row."""
        return np.diff(self.starts, append=len(self.data))


def rows_of(texts: pl.Series) -> Rows:
    """The rows of some texts."""
    offsets, data = _buffers(texts)
    is_start = np.zeros(len(data) + 1, bool)
    is_start[offsets] = True
    is_newline = data == NEWLINE
    is_start[1:-1] |= is_newline[:-1] & ~is_newline[1:]
    is_start[-1] = False
    _cut_long_rows(is_start, data)
    starts = np.flatnonzero(is_start)
    return Rows(data, starts, np.searchsorted(offsets, starts, side="right") - 1)


def is_continuation(data: Bytes) -> np.ndarray:
    """Whether each byte goes on with a character of UTF-8 that began before."""
    return (data & 0xC0) == 0x80


def windows(rows: Rows) -> tuple[Numbers, Numbers]:
    """What begins at each place: its bytes, ORDER at most, as a number with zeros at the end, and how many; both end with the row."""
    size = len(rows.data)
    ends = np.repeat(rows.starts + rows.lengths, rows.lengths)
    reach = np.minimum(ends - np.arange(size), ORDER)
    padded = np.zeros(size + ORDER, np.uint64)
    padded[:size] = rows.data
    found = np.zeros(size, np.uint64)
    for place in range(ORDER):
        found = (found << np.uint64(8)) | padded[place : place + size]
    beyond = (8 * (ORDER - reach)).astype(np.uint64)
    return (found >> beyond) << beyond, reach


def prefixes(window: Numbers, order: int) -> Numbers:
    """The first `order` bytes of each window, as a number."""
    return window >> np.uint64(8 * (ORDER - order))


def _buffers(texts: pl.Series) -> tuple[Numbers, Bytes]:
    """Where each text begins, and with it where the last one ends; and the bytes of all."""
    import pyarrow as pa

    lengths = texts.str.len_bytes().to_numpy().astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    if not offsets[-1]:
        return offsets, np.zeros(0, np.uint8)
    array = texts.to_arrow().cast(pa.large_string())
    _, _, data = array.buffers()
    first = np.frombuffer(array.buffers()[1], np.int64)[array.offset]
    return offsets, np.frombuffer(data, np.uint8)[first : first + offsets[-1]]


def _cut_long_rows(is_start: np.ndarray, data: Bytes) -> None:
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=len(data))
    for number in np.flatnonzero(lengths > MOST_BYTES):
        place, end = int(starts[number]), int(starts[number] + lengths[number])
        while end - place > MOST_BYTES:
            place += MOST_BYTES
            while is_continuation(data[place]):
                place -= 1
            is_start[place] = True
