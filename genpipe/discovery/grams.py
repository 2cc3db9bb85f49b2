"""The n-grams of a text with their exact counts: those that are frequent enough, each with the n-gram of all but its last unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Array = np.ndarray
UNIT_BITS = np.uint64(32)
UNIT_MASK = np.uint64((1 << 32) - 1)
NONE = -1  # in place of an index: the n-gram is not there


class Order(NamedTuple):
    """The n-grams of one order, sorted by their units.

    `keys`: uint64 [n-grams], ascending, the prefix and the last unit as one number. `counts`: int64 [n-grams].
    """

    keys: Array
    counts: Array

    @property
    def prefixes(self) -> Array:
        """The index of all but the last unit among the n-grams of the order below, int64 [n-grams]; 0 of single units."""
        return (self.keys >> UNIT_BITS).astype(np.int64)

    @property
    def units(self) -> Array:
        """The last unit, from 1, int64 [n-grams]."""
        return (self.keys & UNIT_MASK).astype(np.int64)


@dataclass(frozen=True)
class Grams:
    """`orders[k - 1]` has the n-grams of k units; unit i is `names[i - 1]`.

    `total`: all units of the text, `pairs`: all neighbours in a row; those that are too rare for the table count too.
    """

    names: list[str]
    orders: tuple[Order, ...]
    total: int
    pairs: int

    def find(self, windows: Sequence[Array]) -> list[Array]:
        """For each order the indices of the n-grams that windows begin with, int64 [windows], NONE where one is not there.

        `windows`: for each place the unit there, int64 [windows], 0 for none.
        """
        found = [np.where(windows[0] > 0, windows[0] - 1, NONE)]
        for order, units in zip(self.orders[1:], windows[1:], strict=False):
            found.append(look_up(order.keys, found[-1], units))
        return found

    def suffixes(self) -> list[Array]:
        """For each order the indices of all but the first unit among the n-grams of the order below, int64 [n-grams]; of single units 0."""
        found = [np.zeros(len(self.orders[0].keys), np.int64)]
        for below, order in zip(self.orders, self.orders[1:], strict=False):
            if below is self.orders[0]:
                found.append(order.units - 1)
            else:
                found.append(look_up(below.keys, found[-1][order.prefixes], order.units))
        return found

    def units_of(self, order: int) -> Array:
        """The units of all n-grams of an order, int64 [n-grams, order]."""
        rows = np.arange(len(self.orders[order - 1].keys))
        units = []
        for table in self.orders[order - 1 :: -1]:
            units.append(table.units[rows])
            rows = table.prefixes[rows]
        return np.stack(units[::-1], 1)


def look_up(keys: Array, prefixes: Array, units: Array) -> Array:
    """The places of (prefix, unit) among sorted keys, int64 [queries], NONE where it is not there or has no prefix or unit."""
    found = np.full(len(prefixes), NONE)
    asked = np.flatnonzero((prefixes != NONE) & (units > 0))
    if not len(keys) or not len(asked):
        return found
    wanted = key_of(prefixes[asked], units[asked])
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found[asked] = np.where(keys[places] == wanted, places, NONE)
    return found


def key_of(prefixes: Array, units: Array) -> Array:
    """A prefix and a last unit as one number, uint64."""
    return (prefixes.astype(np.uint64) << UNIT_BITS) | units.astype(np.uint64)
