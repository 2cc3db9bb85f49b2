"""An n-gram model of bytes, counted exactly: shards become sorted files of windows, ranges of all files parts of the model.

Only windows are counted: the bytes from each place on, six at most, up to the end of the row. How often an n-gram begins
with some bytes is then the sum over all windows that begin so, and all orders come from one sorting.

The model is that of BytePiece (Su Jianlin, archives/9752): an n-gram scores ln(count / count of all but its last byte), of
one byte ln(count / all bytes), without smoothing; one of two bytes or more that was seen less than `min_count` times is
left out. What lies within one character stays, so that every character of the texts can be spelled. Scores are whole
numbers of 1/SCALE, so that sums are exact: no order of adding and no processor changes a piece.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from genpipe.corpus.shards import Shard, read
from genpipe.corpus.tasks import Executor, Task
from genpipe.discovery.byte_windows import ORDER, Numbers, prefixes, rows_of, windows
from genpipe.files import new_file
from genpipe.progress import Progress

SCALE = 1 << 20  # to a nat
# of an n-gram that is not in the model: worse than a row of the rarest ones. Not an int: np.where would cut that to 32 bits
MISSING = np.int64(-(1 << 38))
BLOCK = 1 << 22  # bytes of text whose windows are sorted at once
BYTES_OF_A_ROW = 96  # of a run, while it is added up
PAIRS = 1 << 16  # ranges do not part windows of which the first two bytes are equal
SEARCHED = range(3, ORDER + 1)  # orders that are looked up by search; the others by index


@dataclass(frozen=True)
class WindowRun:
    """A file of the windows of a shard, sorted, with the count of each."""

    path: Path
    spread: Numbers  # [PAIRS], windows by their first two bytes
    size: int  # bytes of text


@dataclass(frozen=True)
class ModelPart:
    """A file of the n-grams of a range."""

    path: Path
    pairs: Numbers  # [PAIRS], counts of pairs of bytes
    singles: Numbers  # [256], counts of bytes
    sizes: dict[int, int]  # n-grams of each order that is searched


class NgramModel:
    """The scores of n-grams, read from a folder that `train_ngrams` wrote."""

    def __init__(self, folder: Path) -> None:
        self._tables = {order: np.load(folder / f"table{order}.npy") for order in (1, 2)}
        self._keys = {order: np.load(folder / f"keys{order}.npy", mmap_mode="r") for order in SEARCHED}
        self._scores = {order: np.load(folder / f"scores{order}.npy", mmap_mode="r") for order in SEARCHED}

    def scores(self, window: Numbers, reach: Numbers) -> Iterator[tuple[int, Numbers]]:
        """Each order, and the scores of the n-grams of that order that begin at each place; MISSING where none does."""
        by_window = np.argsort(window)
        ordered = window[by_window]
        for order in range(1, ORDER + 1):
            found = np.empty(len(window), np.int64)
            found[by_window] = self._of(prefixes(ordered, order), order)
            found[reach < order] = MISSING
            yield order, found

    def _of(self, grams: Numbers, order: int) -> Numbers:
        """The scores of sorted n-grams."""
        if order in self._tables:
            return self._tables[order][grams.astype(np.int64)].astype(np.int64)
        keys = self._keys[order]
        if not len(keys) or not len(grams):
            return np.full(len(grams), MISSING)
        firsts = _firsts(grams)
        distinct = grams[firsts]
        places = np.minimum(np.searchsorted(keys, distinct), len(keys) - 1)
        scores = np.where(keys[places] == distinct, self._scores[order][places], MISSING)
        return np.repeat(scores, np.diff(firsts, append=len(grams)))


def train_ngrams(
    does: Executor, shards: Sequence[Shard], folder: Path, *, min_count: int, memory: int, name: str
) -> int:
    """Write the model of the texts in shards into a folder; the bytes of text."""
    tasks = [
        Task(str(shard), functools.partial(count_windows, shard, folder / f"run{number}.npy"))
        for number, shard in enumerate(shards)
    ]
    with Progress(f"{name}, n-grams", sum(shard.size for shard in shards) / 1e6, "MB") as progress:
        runs = does.run(tasks, lambda number, run: progress.reach(progress.done + shards[number].size / 1e6))
    paths = [run.path for run in runs]
    spread = np.zeros(PAIRS, np.int64)
    for run in runs:
        spread += run.spread
    ranges = [
        Task(
            f"{name}: range {first:04x} to {last:04x}",
            functools.partial(add_up_windows, paths, first, last, min_count, folder / f"part{first}.npz"),
        )
        for first, last in choose_ranges(spread, max(1, memory // BYTES_OF_A_ROW))
    ]
    with Progress(f"{name}, adding up", len(ranges), "ranges") as progress:
        parts = does.run(ranges, lambda number, part: progress.reach(progress.done + 1))
    for path in paths:
        path.unlink()
    _write_model(parts, folder, min_count)
    return sum(run.size for run in runs)


def choose_ranges(spread: Numbers, most: int) -> list[tuple[int, int]]:
    """Ranges of pairs of bytes, from the first (included) to the last (excluded), of `most` rows each or of one pair."""
    ends = np.cumsum(spread)
    ranges: list[tuple[int, int]] = []
    first = 0
    while first < PAIRS:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        ranges.append((first, last))
        first = last
    return ranges


def count_windows(shard: Shard, path: Path) -> WindowRun:
    """The run of a shard."""
    counts = (np.zeros(0, np.uint64), np.zeros(0, np.int64))
    size = 0
    for texts in read(shard).blocks(BLOCK):
        keys = np.sort(_keys(texts))
        size += len(keys)
        counts = _added_up(*counts, keys, np.ones(len(keys), np.int64))
    _save(path, np.stack([counts[0], counts[1].astype(np.uint64)]))
    spread = np.bincount(_pairs(counts[0]), minlength=PAIRS)
    return WindowRun(path, spread, size)


def add_up_windows(paths: Sequence[Path], first: int, last: int, min_count: int, path: Path) -> ModelPart:
    """The n-grams of a range of all runs, with their scores; those of one and of two bytes as counts."""
    keys, counts = _within(paths, first, last)
    window, reach = keys >> np.uint64(8), (keys & np.uint64(7)).astype(np.int64)
    singles = np.zeros(256, np.int64)
    np.add.at(singles, prefixes(window, 1).astype(np.int64), counts)
    grams, totals = _summed(window, reach, counts, 2)
    pairs = np.zeros(PAIRS, np.int64)
    pairs[grams.astype(np.int64)] = totals
    found: dict[str, Numbers] = {}
    sizes: dict[int, int] = {}
    for order in SEARCHED:
        before, totals_before = grams, totals
        grams, totals = _summed(window, reach, counts, order)
        is_kept = (totals >= min_count) | _within_character(grams, order)
        of = totals_before[np.searchsorted(before, grams >> np.uint64(8))]
        found[f"keys{order}"] = grams[is_kept]
        found[f"scores{order}"] = _scores(totals, of)[is_kept]
        sizes[order] = int(is_kept.sum())
    with new_file(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **found)
    return ModelPart(path, pairs, singles, sizes)


def _write_model(parts: Sequence[ModelPart], folder: Path, min_count: int) -> None:
    singles = np.maximum(
        np.sum([part.singles for part in parts], axis=0), 1
    )  # a byte that is nowhere can be spelled
    pairs = np.sum([part.pairs for part in parts], axis=0)
    of = np.repeat(singles, 256)
    is_kept = (pairs >= max(min_count, 1)) | (
        (pairs > 0) & _within_character(np.arange(PAIRS, dtype=np.uint64), 2)
    )
    _save(folder / "table1.npy", _scores(singles, np.full(256, singles.sum())))
    _save(folder / "table2.npy", np.where(is_kept, _scores(np.maximum(pairs, 1), of), MISSING))
    for order in SEARCHED:
        for kind, dtype in (("keys", np.uint64), ("scores", np.int32)):
            _join(parts, f"{kind}{order}", order, np.dtype(dtype), folder)
    for part in parts:
        part.path.unlink()


def _join(parts: Sequence[ModelPart], name: str, order: int, dtype: np.dtype, folder: Path) -> None:
    """One array of those of all parts, without holding it."""
    size = sum(part.sizes[order] for part in parts)
    if not size:
        return _save(folder / f"{name}.npy", np.zeros(0, dtype))
    whole = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (size,))
    start = 0
    for part in parts:
        with np.load(part.path) as arrays:
            values = arrays[name]
        whole[start : start + len(values)] = values
        start += len(values)
    whole.flush()
    return None


def _keys(texts: pl.Series) -> Numbers:
    """The windows of texts, with their lengths in the last byte."""
    window, reach = windows(rows_of(texts))
    return (window << np.uint64(8)) | reach.astype(np.uint64)


def _pairs(keys: Numbers) -> Numbers:
    return (keys >> np.uint64(8 * (ORDER - 1))).astype(np.int64)


def _within(paths: Sequence[Path], first: int, last: int) -> tuple[Numbers, Numbers]:
    """The sum of all runs over a range: windows with their lengths, and counts."""
    slices: list[np.ndarray] = []
    for path in paths:
        run = np.load(path, mmap_mode="r")
        bounds = np.array([first, last], np.uint64) << np.uint64(8 * (ORDER - 1))
        start, end = np.searchsorted(run[0], bounds)
        slices.append(np.array(run[:, start:end]))
    keys, counts = np.concatenate(slices, axis=1) if slices else np.zeros((2, 0), np.uint64)
    by_key = np.argsort(keys, kind="stable")
    return _added_up(
        np.zeros(0, np.uint64), np.zeros(0, np.int64), keys[by_key], counts[by_key].astype(np.int64)
    )


def _added_up(
    keys: Numbers, counts: Numbers, more: Numbers, counts_of_more: Numbers
) -> tuple[Numbers, Numbers]:
    """The sums of two sorted lists of keys and counts; keys of the second may be there many times."""
    firsts = _firsts(more)
    more, counts_of_more = more[firsts], _sums(counts_of_more, firsts)
    if not len(keys):
        return more, counts_of_more
    keys, counts = np.concatenate([keys, more]), np.concatenate([counts, counts_of_more])
    by_key = np.argsort(keys, kind="stable")
    keys, counts = keys[by_key], counts[by_key]
    firsts = _firsts(keys)
    return keys[firsts], _sums(counts, firsts)


def _summed(window: Numbers, reach: Numbers, counts: Numbers, order: int) -> tuple[Numbers, Numbers]:
    """The n-grams of an order that windows begin with, sorted, and their counts."""
    is_long = reach >= order
    grams = prefixes(window[is_long], order)
    firsts = _firsts(grams)
    return grams[firsts], _sums(counts[is_long], firsts)


def _within_character(grams: Numbers, order: int) -> np.ndarray:
    """Whether each n-gram is the beginning of one character of UTF-8, or all of it."""
    first = grams >> np.uint64(8 * (order - 1))
    length = 1 + (first >= 0xC0).astype(int) + (first >= 0xE0) + (first >= 0xF0)
    return length >= order


def logarithms(counts: Numbers) -> Numbers:
    """Natural logarithms of counts in 1/SCALE, the same on every processor.

    Kernels differ in the last bits of a logarithm. Of no count up to 20 million is one near enough to a half to be rounded
    differently.
    """
    return np.rint(SCALE * np.log(counts)).astype(np.int64)


def _scores(counts: Numbers, of: Numbers) -> Numbers:
    return (logarithms(counts) - logarithms(of)).astype(np.int32)


def _firsts(values: Numbers) -> Numbers:
    """Where each value of a sorted list is for the first time."""
    return (
        np.flatnonzero(np.append(True, values[1:] != values[:-1])) if len(values) else np.zeros(0, np.int64)
    )


def _sums(counts: Numbers, firsts: Numbers) -> Numbers:
    return np.add.reduceat(counts, firsts) if len(firsts) else np.zeros(0, np.int64)


def _save(path: Path, array: np.ndarray) -> None:
    with new_file(path) as partial, partial.open("wb") as file:
        np.save(file, array)
