"""Exact counts of n-grams of units, by shards and in bounded memory, pruned only after all of them are added up.

A worker turns a shard into runs: files of sorted windows, named by all that they depend on. A run that was counted for one corpus is good for
any other one, so a text that grows is counted where it is new only. The runs are added up by ranges of windows.
"""

import bisect
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from genpipe import files as file_tools
from genpipe.corpus.normalisation import normalisation_version, normaliser
from genpipe.corpus.shards import Content, Shard, read
from genpipe.corpus.tasks import Away, Executor, Task
from genpipe.dependencies import version_of
from genpipe.discovery.grams import UNIT_BITS, Grams, Order, key_of
from genpipe.discovery.units import UnitKind
from genpipe.discovery.windows import WORD, Windows, count_windows, layout, order_of, pack, unpack
from genpipe.errors import BadInput
from genpipe.progress import Progress

Array = np.ndarray

MOST = 6  # units of an n-gram
BYTES_OF_A_CHARACTER = 40  # while the windows of a text are sorted
BYTES_OF_A_WINDOW = 160  # while a range is added up
SAMPLES = 256  # of a run
USUAL_SHARD = 8 << 20  # bytes of text: about a second


@dataclass(frozen=True)
class GramCounting:
    """What is counted, and with how much memory."""

    order: int
    scratch: Path
    units: UnitKind = "runs"
    normalise: tuple[str, ...] = ()
    min_count: int = 1
    memory: int = 256 << 20  # bytes for a worker; no result depends on it

    def __post_init__(self) -> None:
        if not 2 <= self.order <= MOST:
            raise BadInput(f"order: n-grams of 2 to {MOST} units are counted, not of {self.order}")

    @property
    def block(self) -> int:
        """Bytes of text whose windows are sorted at once."""
        return max(1 << 16, self.memory // BYTES_OF_A_CHARACTER)

    def key_of(self, content: Content) -> str:
        """A name for the runs of a shard with this content."""
        steps = normalisation_version(self.normalise)
        version = f"{self.order} {self.units} {steps} {self.block} {_code_version()}"
        return hashlib.sha256(f"grams {version} {content.digest()}".encode()).hexdigest()


@functools.cache
def _code_version() -> str:
    return version_of("discovery.gram_counting:count_shard")


class Run(NamedTuple):
    """A file of windows, and what is known of it."""

    path: str
    rows: int
    sample: list[tuple[str, str]]  # the first two units of evenly spaced windows


class Counted(NamedTuple):
    """The runs of a shard, and how many neighbours it has."""

    runs: list[Run]
    pairs: int


def count_shard(shard: Shard, counting: GramCounting) -> Counted:
    """The runs of a shard: those in `scratch` if it was counted before, else counted now."""
    content = read(shard)
    key = counting.key_of(content)
    return _known(counting.scratch, key) or _keep(counting.scratch, key, _windows(content, counting))


def count_task(shard: Shard, counting: GramCounting) -> Task[Counted]:
    """Counts a shard."""

    def pack_content() -> Callable[[], tuple[str, list[Windows]] | Counted]:
        content = read(shard)
        key = counting.key_of(content)
        known = _known(counting.scratch, key)
        return functools.partial(_same, known) if known else functools.partial(_away, key, content, counting)

    def keep(found: tuple[str, list[Windows]] | Counted) -> Counted:
        return found if isinstance(found, Counted) else _keep(counting.scratch, *found)

    return Task(str(shard), functools.partial(count_shard, shard, counting), Away(pack_content, keep))


def _same(counted: Counted) -> Counted:
    return counted


def _away(key: str, content: Content, counting: GramCounting) -> tuple[str, list[Windows]]:
    return key, [*_windows(content, counting)]


def _windows(content: Content, counting: GramCounting) -> Iterator[Windows]:
    """The windows of one block after another."""
    normalise = normaliser(counting.normalise) if counting.normalise else None
    for block in content.blocks(counting.block):
        texts = block.to_list()
        yield count_windows([*map(normalise, texts)] if normalise else texts, counting.order, counting.units)


def _known(scratch: Path, key: str) -> Counted | None:
    try:
        found = json.loads((scratch / f"{key}.json").read_bytes())
    except (OSError, ValueError):  # not counted yet
        return None
    runs = [
        Run(str(scratch / name), rows, [(first, second) for first, second in sample])
        for name, rows, sample in found["runs"]
    ]
    is_whole = all(Path(run.path).exists() for run in runs)
    return Counted(runs, found["pairs"]) if is_whole else None


def _keep(scratch: Path, key: str, blocks: Iterable[Windows]) -> Counted:
    """Write runs, and then what is known of them: a shard is counted when that file is there."""
    runs: list[Run] = []
    pairs = 0
    for number, windows in enumerate(blocks):
        runs.append(_write(scratch / f"{key}.{number}.safetensors", windows))
        pairs += windows.pairs
    about = [(Path(run.path).name, run.rows, run.sample) for run in runs]
    file_tools.write_json(scratch / f"{key}.json", {"runs": about, "pairs": pairs})
    return Counted(runs, pairs)


def _write(path: Path, windows: Windows) -> Run:
    names = np.frombuffer("\n".join(windows.names).encode(), np.uint8)
    with file_tools.new_file(path) as partial:
        save_file(
            {
                "words": windows.words,
                "counts": windows.counts.astype(np.uint32),
                "names": names if len(names) else np.zeros(0, np.uint8),
                "unit_counts": windows.unit_counts.astype(np.uint32),
            },
            partial,
        )
    return Run(str(path), len(windows.words), _sample(windows))


def _sample(windows: Windows) -> list[tuple[str, str]]:
    every = max(1, len(windows.words) // SAMPLES)
    bits, _ = layout(len(windows.names), 1)
    first, second = unpack(windows.words[::every], bits, 2)
    names = ["", *windows.names]
    return [(names[a], names[b]) for a, b in zip(first.tolist(), second.tolist(), strict=True)]


def read_names(path: str) -> tuple[list[str], Array]:
    """The units of a run, sorted, and how often each is there, int64 [units]."""
    with safe_open(path, "numpy") as file:
        text = file.get_tensor("names").tobytes().decode()
        return text.split("\n") if text else [], file.get_tensor("unit_counts").astype(np.int64)


class Part(NamedTuple):
    """The windows of a run in a range: its rows from `begin` (included) to `end` (excluded)."""

    path: str
    begin: int
    end: int


class Windowed(NamedTuple):
    """Windows by the numbers that units have in the whole corpus (0: too rare)."""

    units: list[Array]  # int64 [windows] for each place
    counts: Array


@dataclass(frozen=True)
class Numbering:
    """The units of the corpus that are frequent enough: `names[i - 1]` has the number i."""

    names: tuple[str, ...]

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each unit."""
        return {name: number for number, name in enumerate(self.names, start=1)}


def read_part(part: Part, order: int, numbering: Numbering) -> Windowed:
    """The windows of a part."""
    if part.begin == part.end:  # safetensors cuts no empty slice
        return Windowed([np.zeros(0, np.int64)] * order, np.zeros(0, np.int64))
    table = _table(part.path, numbering)
    bits, _ = layout(len(table) - 1, order)
    with safe_open(part.path, "numpy") as file:
        rows = file.get_slice("words")[part.begin : part.end]
        counts = file.get_slice("counts")[part.begin : part.end].astype(np.int64)
    units = [table[place] for place in unpack(rows, bits, order)]
    # behind a unit that is too rare there is nothing frequent
    for before, after in itertools.pairwise(units):
        after[before == 0] = 0
    kept = units[0] > 0
    return Windowed([place[kept] for place in units], counts[kept])


@functools.lru_cache(4096)  # each range needs those of all runs
def _table(path: str, numbering: Numbering) -> Array:
    """The number of each unit of a run in the whole corpus, int64 [units + 1]; 0 for none."""
    names, _ = read_names(path)
    return np.array([0, *(numbering.numbers.get(name, 0) for name in names)], np.int64)


def parts_of(run: Run, cuts: Sequence[tuple[str, str]], order: int) -> list[Part]:
    """The parts of a run in the ranges that begin at the first window and at each cut: two first units."""
    names, _ = read_names(run.path)
    bits, _ = layout(len(names), order)
    with safe_open(run.path, "numpy") as file:
        words = file.get_slice("words")
        places = [_place(words, run.rows, _word_of(cut, names, bits)) for cut in cuts]
    return [Part(run.path, begin, end) for begin, end in itertools.pairwise([0, *places, run.rows])]


def _word_of(cut: tuple[str, str], names: list[str], bits: int) -> int:
    """The first word of the first window from `cut` on, by a run's own numbers."""
    per = WORD // bits
    first = bisect.bisect_left(names, cut[0])
    is_there = first < len(names) and names[first] == cut[0]
    second = bisect.bisect_left(names, cut[1]) if is_there and cut[1] else -1
    return (first + 1) << bits * (per - 1) | (second + 1) << bits * (per - 2)


def _place(words: Any, rows: int, word: int) -> int:
    """The first row whose first word is `word` or more."""
    return bisect.bisect_left(range(rows), word, key=lambda row: int(words[row : row + 1][0, 0]))


def add_up(parts: Sequence[Windowed], order: int, min_count: int, num_names: int) -> list[Order]:
    """The n-grams of order 2 and more that are frequent enough, of windows with the first two units in a range.

    No other range has any of these n-grams, so all of their occurrences are here. Prefixes of order 3 and more count within the range.
    """
    units = [np.concatenate([part.units[place] for part in parts]) for place in range(order)]
    counts = np.concatenate([part.counts for part in parts])
    bits, _ = layout(num_names, order)
    sorting = order_of(pack(units, bits))
    return _orders([place[sorting] for place in units], counts[sorting], min_count)


def _orders(units: list[Array], counts: Array, min_count: int) -> list[Order]:
    """From sorted windows, the n-grams of order 2 and more with `min_count` occurrences or more."""
    begins = np.zeros(len(counts), bool)
    begins[:1] = True
    begins[1:] = units[0][1:] != units[0][:-1]
    kept_below = units[0] - 1  # for each window, the index of its n-gram of the order below
    orders: list[Order] = []
    for place in range(1, len(units)):
        begins[1:] |= units[place][1:] != units[place][:-1]
        places = np.flatnonzero(begins)
        sums = np.add.reduceat(counts, places) if len(places) else np.zeros(0, np.int64)
        is_kept = (sums >= min_count) & (units[place][places] > 0)
        rows = places[is_kept]
        orders.append(Order(key_of(kept_below[rows], units[place][rows]), sums[is_kept]))
        index = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
        kept_below = index[np.cumsum(begins) - 1] if len(places) else kept_below
    return orders


def cuts_of(runs: Sequence[Run], number: int) -> list[tuple[str, str]]:
    """Where at most `number` ranges with about as many windows each begin, but the first."""
    sample = sorted(each for run in runs for each in run.sample)
    return sorted({sample[len(sample) * i // number] for i in range(1, number)}) if sample else []


def merged(
    shards: Sequence[Counted], counting: GramCounting, does: Executor, workers: int, name: str
) -> Grams:
    """The sum of the runs of some shards; a shard that is there twice counts twice."""
    runs = [run for counted in shards for run in counted.runs]
    names, unit_counts, total = _units(runs, counting.min_count)
    numbering = Numbering(tuple(names))
    at_once = max(1, workers)
    needed = math.ceil(sum(run.rows for run in runs) * BYTES_OF_A_WINDOW / counting.memory)
    cuts = cuts_of(runs, math.ceil(needed / at_once) * at_once)
    # a range of all runs is a task
    ranges = zip(*(parts_of(run, cuts, counting.order) for run in runs), strict=True)
    tasks = [
        _range_task(f"{name}: range {number}", parts, counting, numbering)
        for number, parts in enumerate(ranges)
    ]
    with Progress(f"{name}, adding up", len(tasks), "ranges") as progress:
        found = does.run(tasks, lambda number, part: progress.reach(progress.done + 1))
    single = Order(np.arange(1, len(names) + 1, dtype=np.uint64), unit_counts)
    pairs = sum(counted.pairs for counted in shards)
    return Grams(names, (single, *_joined(found, counting.order)), total, pairs)


def _range_task(
    name: str, parts: Sequence[Part], counting: GramCounting, numbering: Numbering
) -> Task[list[Order]]:
    how = (counting.order, counting.min_count, len(numbering.names))

    def pack_windows() -> Callable[[], list[Order]]:
        return functools.partial(add_up, _read_all(parts, counting.order, numbering), *how)

    return Task(name, functools.partial(_read_and_add_up, parts, numbering, *how), Away(pack_windows, list))


def _read_all(parts: Sequence[Part], order: int, numbering: Numbering) -> list[Windowed]:
    return [read_part(part, order, numbering) for part in parts]


def _read_and_add_up(
    parts: Sequence[Part], numbering: Numbering, order: int, min_count: int, num_names: int
) -> list[Order]:
    return add_up(_read_all(parts, order, numbering), order, min_count, num_names)


def _joined(ranges: Sequence[Sequence[Order]], order: int) -> Iterator[Order]:
    """The n-grams of ranges behind one another; prefixes count from the first range on."""
    before = np.zeros(
        len(ranges), np.int64
    )  # n-grams of the order below in the ranges before: of single units there are no ranges
    for place in range(order - 1):
        orders = [of_range[place] for of_range in ranges]
        keys = [
            each.keys + (np.uint64(start) << UNIT_BITS) for each, start in zip(orders, before, strict=True)
        ]
        yield Order(
            np.concatenate([np.zeros(0, np.uint64), *keys]),
            np.concatenate([np.zeros(0, np.int64), *(each.counts for each in orders)]),
        )
        sizes = [len(each.keys) for each in orders]
        before = np.cumsum([0, *sizes])[:-1] if sizes else before


def _units(runs: Sequence[Run], min_count: int) -> tuple[list[str], Array, int]:
    """The units of all runs that are frequent enough, sorted, their counts, and the number of all."""
    counts: dict[str, int] = {}
    for run in runs:
        for unit, count in zip(*read_names(run.path), strict=True):
            counts[unit] = counts.get(unit, 0) + int(count)
    kept = sorted(unit for unit, count in counts.items() if count >= min_count)
    return kept, np.array([counts[unit] for unit in kept], np.int64), sum(counts.values())
