"""What people want to see of a corpus, all of it a function of how many tokens occur how often."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

POINTS = 200  # of a curve, at most


@dataclass(frozen=True)
class Spectrum:
    """How many types occur how often: counts, int64 [n], descending, and types, int64 [n]."""

    counts: np.ndarray
    types: np.ndarray

    @property
    def tokens(self) -> int:
        """All tokens."""
        return int((self.counts * self.types).sum())


def spectrum_of(tables: Iterable[pa.Table]) -> Spectrum:
    """The spectrum of tables of counts, each ordered by count descending; one table is in memory at a time."""
    totals: dict[int, int] = {}
    for table in tables:
        counts, types = np.unique(table["count"].to_numpy(), return_counts=True)
        for count, number in zip(counts.tolist(), types.tolist(), strict=True):
            totals[count] = totals.get(count, 0) + number
    counts = np.array(sorted(totals, reverse=True), dtype=np.int64)
    return Spectrum(counts, np.array([totals[count] for count in counts.tolist()], dtype=np.int64))


def zipf(spectrum: Spectrum) -> list[tuple[int, int]]:
    """(rank, count) at ranks that lie evenly on a logarithmic axis."""
    ends = spectrum.types.cumsum()
    ranks = spaced(int(ends[-1])) if len(ends) else []
    return [(rank, int(spectrum.counts[np.searchsorted(ends, rank)])) for rank in ranks]


def coverage(spectrum: Spectrum) -> list[tuple[int, float]]:
    """(size, share): the share of the running text that the `size` most frequent types make up."""
    types = np.concatenate([[0], spectrum.types.cumsum()])
    tokens = np.concatenate([[0], (spectrum.counts * spectrum.types).cumsum()])
    sizes = spaced(int(types[-1]))
    return [(size, float(np.interp(size, types, tokens) / tokens[-1])) for size in sizes]


def growth(spectrum: Spectrum) -> list[tuple[int, float]]:
    """(tokens, types): how many types are expected in so many tokens drawn at random from the text (Heaps' law).

    A type that occurs c times in N tokens is among n of them with probability 1 - (1 - n/N)^c: no order of the
    documents enters.
    """
    total = spectrum.tokens
    curve: list[tuple[int, float]] = []
    for tokens in spaced(total):
        absent = (1 - tokens / total) ** spectrum.counts.astype(np.float64)
        curve.append((tokens, float((spectrum.types * (1 - absent)).sum())))
    return curve


def spaced(last: int) -> list[int]:
    """At most POINTS whole numbers from 1 to `last`, even on a logarithmic axis."""
    return np.unique(np.geomspace(1, last, POINTS).round().astype(np.int64)).tolist() if last else []
