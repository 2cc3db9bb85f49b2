"""Token ids of texts of unequal length, padded to the right."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import read_array


class Texts:
    """The texts of one field of a split: text i is `ids[offsets[i] : offsets[i + 1]]`."""

    def __init__(self, directory: Path, split: str, field: str, max_length: int | None = None) -> None:
        self.ids = read_array(directory / f"{split}.{field}.ids.npy")
        self.offsets = read_array(directory / f"{split}.{field}.offsets.npy")
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """The ids of a text, int64 [time], cut to `max_length`."""
        return np.asarray(self.ids[self.offsets[row] : self.offsets[row + 1]][: self.max_length], np.int64)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """The number of ids of each text, int64 [rows]."""
        return np.minimum(np.diff(self.offsets), self.max_length or np.iinfo(np.int64).max)

    def padded(self, rows: Iterable[int], pad: int) -> tuple[Tensor, Tensor]:
        """The ids of some texts, int64 [rows, time], and their lengths, int64 [rows]."""
        return padded([self[int(row)] for row in rows], pad)


def padded(texts: Sequence[np.ndarray], pad: int) -> tuple[Tensor, Tensor]:
    """Rows of ids as long as the longest one, int64 [rows, time], and the lengths before."""
    lengths = np.array([len(text) for text in texts], np.int64)
    out = np.full((len(texts), max(lengths, default=0)), pad, np.int64)
    for row, text in zip(out, texts, strict=True):
        row[: len(text)] = text
    return torch.from_numpy(out), torch.from_numpy(lengths)
