"""The IDX format of MNIST: a big-endian header, then the bytes of an array.

Reference: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genpipe.errors import BadInput

UNSIGNED_BYTE = 0x08


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an array of bytes, of any shape."""
    header = struct.pack(f">HBB{array.ndim}I", 0, UNSIGNED_BYTE, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Read an array of bytes with `ndim` dimensions; another kind of file, or a cut one, is an error."""
    content = path.read_bytes()
    start = struct.pack(">HBB", 0, UNSIGNED_BYTE, ndim)
    offset = len(start) + 4 * ndim
    if content[:4] != start or len(content) < offset:
        raise BadInput(
            f"{path}: not an IDX file of bytes, since it begins with {content[:4].hex()} and not with {start.hex()}; "
            "write it again with `genpipe data --force`, or give an unpacked IDX file"
        )
    shape = struct.unpack(f">{ndim}I", content[4:offset])
    wanted = int(np.prod(shape, dtype=np.int64))
    if len(content) - offset != wanted:
        raise BadInput(
            f"{path}: must have {wanted:,} bytes after the header for shape {shape}, has {len(content) - offset:,}; "
            "the file is cut or damaged, write it again"
        )
    return np.frombuffer(content, np.uint8, offset=offset).reshape(shape)
