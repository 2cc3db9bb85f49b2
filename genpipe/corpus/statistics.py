"""What people want to see of a corpus, all of it a function of how many tokens occur how often."""

from dataclasses import dataclass

import numpy as np
import polars as pl

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


def spectrum_of(rows: pl.LazyFrame) -> Spectrum:
    """The spectrum of a table of counts."""
    spectrum = rows.group_by("count").len("types").sort("count", descending=True).collect(engine="streaming")
    return Spectrum(spectrum["count"].to_numpy(), spectrum["types"].cast(pl.Int64).to_numpy())


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
