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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
from genpipe.discovery.windows import Windows, count_windows, layout, order_of, pack, unpack
from genpipe.errors import BadInput
from genpipe.progress import Progress

Array = np.ndarray

MOST = 6  # units of an n-gram
BYTES_OF_A_CHARACTER = 40  # while the windows of a text are sorted
BYTES_OF_A_WINDOW = 160  # while a range is added up
SAMPLES = 256  # of a run
USUAL_SHARD = 8 << 20  # bytes of text: about a second
Bound = tuple[str, str] | None  # windows from these two first units on


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
    """The runs of a shard, and how many characters and neighbours it has."""

    runs: list[Run]
    characters: int
    pairs: int


def count_shard(shard: Shard, counting: GramCounting) -> Counted:
    """The runs of a shard: those in `scratch` if it was counted before, else counted now."""
    content = read(shard)
    key = counting.key_of(content)
    known = _known(counting.scratch, key)
    return known or _keep(counting.scratch, key, *_windows(content, counting))


def count_task(shard: Shard, counting: GramCounting) -> Task[Counted]:
    """Counts a shard."""

    def pack_content() -> Callable[[], tuple[str, list[Windows], int] | Counted]:
        content = read(shard)
        key = counting.key_of(content)
        known = _known(counting.scratch, key)
        return functools.partial(_same, known) if known else functools.partial(_away, key, content, counting)

    def keep(found: tuple[str, list[Windows], int] | Counted) -> Counted:
        if isinstance(found, Counted):
            return found
        key, windows, characters = found
        return _keep(counting.scratch, key, iter(windows), lambda: characters)

    return Task(str(shard), functools.partial(count_shard, shard, counting), Away(pack_content, keep))


def _same(counted: Counted) -> Counted:
    return counted


def _away(key: str, content: Content, counting: GramCounting) -> tuple[str, list[Windows], int]:
    windows, characters = _windows(content, counting)
    return key, list(windows), characters()


def _windows(content: Content, counting: GramCounting) -> tuple[Iterator[Windows], Callable[[], int]]:
    """The windows of one block after another, and the characters of those that were taken."""
    seen = [0]

    def blocks() -> Iterator[Windows]:
        for texts in content.blocks(counting.block):
            documents = texts.to_list()
            if counting.normalise:
                documents = [*map(normaliser(counting.normalise), documents)]
            seen[0] += sum(map(len, documents))
            yield count_windows(documents, counting.order, counting.units)

    return blocks(), lambda: seen[0]


def _known(scratch: Path, key: str) -> Counted | None:
    try:
        found = json.loads((scratch / f"{key}.json").read_bytes())
    except (OSError, ValueError):  # not counted yet
        return None
    runs = [
        Run(str(scratch / name), rows, [(first, second) for first, second in sample])
        for name, rows, sample in found["runs"]
    ]
    return (
        Counted(runs, found["characters"], found["pairs"])
        if all(Path(run.path).exists() for run in runs)
        else None
    )


def _keep(scratch: Path, key: str, blocks: Iterator[Windows], characters: Callable[[], int]) -> Counted:
    """Write runs, and then what is known of them: a shard is counted when that file is there."""
    runs: list[Run] = []
    pairs = 0
    for number, windows in enumerate(blocks):
        runs.append(_write(scratch / f"{key}.{number}.safetensors", windows))
        pairs += windows.pairs
    counted = Counted(runs, characters(), pairs)
    rows = [(Path(run.path).name, run.rows, run.sample) for run in runs]
    about = {"runs": rows, "characters": counted.characters, "pairs": counted.pairs}
    file_tools.write_json(scratch / f"{key}.json", about)
    return counted


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


def read_names(run: Run) -> tuple[list[str], Array]:
    """The units of a run, sorted, and how often each is there, int64 [units]."""
    with safe_open(run.path, "numpy") as file:
        text = file.get_tensor("names").tobytes().decode()
        return text.split("\n") if text else [], file.get_tensor("unit_counts").astype(np.int64)


class Windowed(NamedTuple):
    """Rows of a run within bounds, by the numbers that units have in the whole corpus (0: too rare)."""

    units: list[Array]  # int64 [windows] for each place
    counts: Array


def read_within(run: Run, first: Bound, last: Bound, order: int, numbers: dict[str, int]) -> Windowed:
    """The windows from `first` (included) to `last` (excluded)."""
    names, _ = read_names(run)
    bits, _ = layout(len(names), order)
    with safe_open(run.path, "numpy") as file:
        words, counts = file.get_slice("words"), file.get_slice("counts")
        begin = _place(words, run.rows, _word_of(first, names, bits)) if first else 0
        end = _place(words, run.rows, _word_of(last, names, bits)) if last else run.rows
        if begin == end:  # safetensors cuts no empty slice
            return Windowed([np.zeros(0, np.int64)] * order, np.zeros(0, np.int64))
        rows, weights = words[begin:end], counts[begin:end].astype(np.int64)
    table = np.array([0, *(numbers.get(name, 0) for name in names)], np.int64)
    units = [table[place] for place in unpack(rows, bits, order)]
    for before, after in itertools.pairwise(
        units
    ):  # behind a unit that is too rare there is nothing frequent
        after[before == 0] = 0
    kept = units[0] > 0
    return Windowed([place[kept] for place in units], weights[kept])


def _word_of(bound: tuple[str, str], names: list[str], bits: int) -> int:
    """The first word of the first window from `bound` on, by a run's own numbers."""
    per = 64 // bits
    first = bisect.bisect_left(names, bound[0])
    is_there = first < len(names) and names[first] == bound[0]
    second = bisect.bisect_left(names, bound[1]) if is_there and bound[1] else -1
    return (first + 1) << bits * (per - 1) | (second + 1) << bits * (per - 2)


def _place(words: object, rows: int, word: int) -> int:
    """The first row whose first word is `word` or more."""
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if int(words[middle : middle + 1][0, 0]) < word:  # pyright: ignore[reportIndexIssue]
            low = middle + 1
        else:
            high = middle
    return low


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


def ranges_of(runs: Sequence[Run], number: int) -> list[tuple[Bound, Bound]]:
    """At most `number` ranges with about as many windows each."""
    sample = sorted(each for run in runs for each in run.sample)
    cuts = sorted({sample[len(sample) * i // number] for i in range(1, number)}) if sample else []
    return list(zip([None, *cuts], [*cuts, None], strict=True))


def merged(
    shards: Sequence[Counted], counting: GramCounting, does: Executor, workers: int, name: str
) -> Grams:
    """The sum of the runs of some shards; a shard that is there twice counts twice."""
    runs = [run for counted in shards for run in counted.runs]
    names, unit_counts, total = _units(runs, counting.min_count)
    numbers = {unit: number for number, unit in enumerate(names, start=1)}
    rows = sum(run.rows for run in runs)
    at_once = max(1, workers)
    turns = math.ceil(math.ceil(rows * BYTES_OF_A_WINDOW / counting.memory) / at_once)
    tasks = [
        _range_task(f"{name}: range {number}", runs, bounds, counting, numbers)
        for number, bounds in enumerate(ranges_of(runs, turns * at_once))
    ]
    with Progress(f"{name}, adding up", len(tasks), "ranges") as progress:
        found = does.run(tasks, lambda number, part: progress.reach(progress.done + 1)) if runs else []
    single = Order(np.arange(1, len(names) + 1, dtype=np.uint64), unit_counts)
    pairs = sum(counted.pairs for counted in shards)
    return Grams(names, (single, *_joined(found, counting.order)), total, pairs)


def _range_task(
    name: str,
    runs: Sequence[Run],
    bounds: tuple[Bound, Bound],
    counting: GramCounting,
    numbers: dict[str, int],
) -> Task[list[Order]]:
    how = (counting.order, counting.min_count, len(numbers))

    def pack_windows() -> Callable[[], list[Order]]:
        return functools.partial(add_up, _read_all(runs, bounds, counting.order, numbers), *how)

    work = functools.partial(_read_and_add_up, runs, bounds, numbers, *how)
    return Task(name, work, Away(pack_windows, list))


def _read_all(
    runs: Sequence[Run], bounds: tuple[Bound, Bound], order: int, numbers: dict[str, int]
) -> list[Windowed]:
    return [read_within(run, *bounds, order, numbers) for run in runs]


def _read_and_add_up(
    runs: Sequence[Run],
    bounds: tuple[Bound, Bound],
    numbers: dict[str, int],
    order: int,
    min_count: int,
    num_names: int,
) -> list[Order]:
    return add_up(_read_all(runs, bounds, order, numbers), order, min_count, num_names)


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
        for unit, count in zip(*read_names(run), strict=True):
            counts[unit] = counts.get(unit, 0) + int(count)
    kept = sorted(unit for unit, count in counts.items() if count >= min_count)
    return kept, np.array([counts[unit] for unit in kept], np.int64), sum(counts.values())
