"""Many texts cut at once, without a Python string for each piece."""

import numpy as np
import polars as pl


def pieces(data: np.ndarray, starts: np.ndarray) -> pl.Series:
    """The texts that begin at `starts` and end where the next one begins; `data`: UTF-8, uint8 [bytes], `starts`: int64 [pieces]."""
    import pyarrow as pa  # the start of a process that counts does not wait for it

    offsets = np.append(starts, len(data)).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
    return pl.Series(pa.Array.from_buffers(pa.large_string(), len(starts), buffers))


def pieces_by_character(text: str, code_points: np.ndarray, starts: np.ndarray) -> pl.Series:
    """The same of a string and its code points; `starts` are indices of characters."""
    widths = 1 + sum((code_points > most).astype(np.int64) for most in (0x7F, 0x7FF, 0xFFFF))
    before = np.concatenate([[0], np.cumsum(widths)])
    return pieces(np.frombuffer(text.encode(), np.uint8), before[starts])
