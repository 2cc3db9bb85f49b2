"""Candidates beside the n-grams of the text: where each is in the table, and which of them are words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from genpipe.discovery.grams import NONE, Grams
from genpipe.discovery.units import UnitKind, rows_of
from genpipe.discovery.windows import windows_of

Array = np.ndarray


class Located(NamedTuple):
    """Candidates, each a row of units, in a table of n-grams.

    `lengths`: their units, int64 [candidates]. `owners`, `places`: of each of their units the candidate and the place in it, int64 [units].
    `found`: for each order the indices of the n-grams that begin at each unit, int64 [units], NONE where the table has none.
    """

    lengths: Array
    owners: Array
    places: Array
    found: list[Array]

    def whole(self, order: int) -> Array:
        """Of each candidate the index of the n-gram of that order that it is, int64 [candidates], NONE where it is none."""
        indices = np.full(len(self.lengths), NONE)
        is_whole = (self.places == 0) & (self.lengths[self.owners] == order)
        indices[self.owners[is_whole]] = self.found[order - 1][is_whole]
        return indices


def locate(candidates: Sequence[str], grams: Grams, kind: UnitKind) -> Located:
    """Find candidates and their parts."""
    rows = rows_of(candidates, kind)
    is_unit = rows.ids > 0
    owners = np.cumsum(~is_unit)[is_unit]  # a break stands between two of them
    lengths = np.bincount(owners, minlength=len(candidates))
    places = np.arange(len(owners)) - (np.cumsum(lengths) - lengths)[owners]
    numbers = {name: number for number, name in enumerate(grams.names, start=1)}
    # a unit that is too rare for the table has a number that none has
    known = np.array([0, *(numbers.get(name, len(grams.names) + 1) for name in rows.names)], np.int64)
    windows = windows_of(known[rows.ids], len(grams.orders))
    is_rare = windows[0] > len(grams.names)
    found = grams.find([np.where(is_rare, 0, windows[0]), *windows[1:]])
    return Located(lengths, owners, places, found)


def confirmed(located: Located, members: Sequence[Array], *, strict: bool = False) -> Array:
    """Of each candidate whether it is a word, bool [candidates]. `members`: for each order which n-grams are solid, bool [n-grams].

    One or two units are a word. Three and more, up to the order n of the table, must be a solid n-gram; of longer ones all n-grams of n units must be.
    `strict`: all n-grams of three units and more inside a candidate must be solid.
    """
    order = len(members)
    lengths = located.lengths[located.owners]
    is_word = np.ones(len(located.lengths), bool)
    for size in range(3, order + 1):
        judged = located.places + size <= lengths
        if not strict:
            judged &= (lengths == size) | ((lengths > size) & (size == order))
        is_member = np.append(members[size - 1], False)[located.found[size - 1]]
        is_word[located.owners[judged & ~is_member]] = False
    return is_word
