"""Windows: a unit and those that follow it in its row, as numbers whose order is that of the units.

Sorting windows counts the n-grams of all orders at once: those of order k are the windows with the same first k units. Each text numbers its own
units, in the order of their names. So the windows of all texts are in one order, whatever was counted elsewhere.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from genpipe.discovery.units import UnitKind, rows_of

Array = np.ndarray
WORD = 64  # bits


class Windows(NamedTuple):
    """The distinct windows of a text, in order, with the names of their units.

    `words`: uint64 [windows, words of 64 bits], the first unit in the highest bits of the first word. `counts`: int64 [windows].
    `names` sorted; `unit_counts`: int64 [names]; `pairs`: units that another one follows in their row.
    """

    words: Array
    counts: Array
    names: list[str]
    unit_counts: Array
    pairs: int


def layout(num_names: int, order: int) -> tuple[int, int]:
    """Bits of a unit, and 64-bit words of a window."""
    bits = max(1, num_names.bit_length())
    return bits, math.ceil(order / (WORD // bits))


def pack(units: Sequence[Array], bits: int) -> Array:
    """Windows as words, uint64 [windows, words]; `units`: for each place of a window the units there, int64 [windows]."""
    per = WORD // bits
    words = []
    for start in range(0, len(units), per):
        word = np.zeros(len(units[0]), np.uint64)
        for unit in units[start : start + per]:
            word = (word << np.uint64(bits)) | unit.astype(np.uint64)
        missing = per - len(units[start : start + per])
        words.append(word << np.uint64(bits * missing) if missing else word)
    return np.stack(words, 1)


def unpack(words: Array, bits: int, order: int) -> list[Array]:
    """The units of windows, int64 [windows] for each place."""
    per = WORD // bits
    mask = np.uint64((1 << bits) - 1)
    return [
        ((words[:, place // per] >> np.uint64(bits * (per - 1 - place % per))) & mask).astype(np.int64)
        for place in range(order)
    ]


def windows_of(ids: Array, order: int) -> list[Array]:
    """The units behind each unit that is no break, itself first, int64 [units] for each place; 0 from the end of its row on."""
    begins = np.flatnonzero(ids)
    padded = np.concatenate([ids, np.zeros(order, ids.dtype)])
    found = [ids[begins]]
    for place in range(1, order):
        found.append(np.where(found[-1] > 0, padded[begins + place], 0))
    return found


def _behind(ids: Array, order: int) -> list[Array]:
    """The same of breaks, too, int64 [units and breaks] for each place."""
    padded = np.concatenate([ids, np.zeros(order, ids.dtype)])
    found = [ids]
    for place in range(1, order):
        found.append(padded[place : place + len(ids)] * (found[-1] > 0))
    return found


def order_of(words: Array) -> Array:
    """What sorts windows, int64 [windows]."""
    if words.shape[1] == 1:
        return words[:, 0].argsort(
            kind="stable"
        )  # which takes a fraction of the time where sorted windows follow one another
    return np.lexsort(words.T[::-1])


def count_windows(texts: Sequence[str], order: int, kind: UnitKind) -> Windows:
    """The windows of documents, counted."""
    rows = rows_of(texts, kind)
    bits, _ = layout(len(rows.names), order)
    # also of breaks, whose windows have no unit: to leave them out of one word is less work than out of each place
    words = pack(_behind(rows.ids, order), bits)[rows.ids > 0]
    words = np.sort(words, axis=0) if words.shape[1] == 1 else words[order_of(words)]
    firsts = firsts_of(words)
    counts = np.diff(np.append(firsts, len(words)))
    unit_counts = np.bincount(rows.ids, minlength=len(rows.names) + 1)[1:]
    pairs = int(np.count_nonzero(rows.ids[:-1] * rows.ids[1:]))
    return Windows(words[firsts], counts, rows.names, unit_counts, pairs)


def firsts_of(words: Array) -> Array:
    """Where another window begins."""
    if not len(words):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.concatenate([[True], (words[1:] != words[:-1]).any(1)]))
