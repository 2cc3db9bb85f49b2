"""Text cut where nothing binds two neighbours: between all units of a row that no n-gram of a given set has both of.

The set is an automaton over units; a tokenizer of the corpus engine, so that what is between two cuts is counted as words are.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl

from genpipe.corpus.normalisation import normalisation_version
from genpipe.corpus.tokenizers import Tokenizer
from genpipe.dependencies import version_of
from genpipe.discovery.grams import NONE, Grams, key_of
from genpipe.discovery.pieces import pieces_by_character
from genpipe.discovery.units import BREAK, Numbers, UnitKind, Units, cut_units

Array = np.ndarray
FILTER_BITS = 22
SPREAD = np.uint64(
    0x9E3779B97F4A7C15
)  # 2⁶⁴ divided by the golden ratio: neighbours get places far from one another


@dataclass(frozen=True, eq=False)
class Binding:
    """A set of n-grams of two units and more."""

    names: tuple[str, ...]
    levels: tuple[
        tuple[Array, Array], ...
    ]  # of each order from 2 on: keys of the beginnings of members, and which are members
    units: UnitKind

    @property
    def digest(self) -> str:
        """A hash of all that is bound by it."""
        digest = hashlib.sha256("\n".join([self.units, *self.names]).encode())
        for keys, is_member in self.levels:
            digest.update(keys.tobytes() + is_member.tobytes())
        return digest.hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Binding) and self.digest == other.digest


def binding_of(grams: Grams, members: Sequence[Array], units: UnitKind) -> Binding:
    """The members of each order, bool [n-grams], as an automaton."""
    reached = [member.copy() for member in members]
    for order in range(len(members) - 1, 0, -1):
        reached[order - 1][grams.orders[order].prefixes[reached[order]]] = True
    levels: list[tuple[Array, Array]] = []
    index = np.arange(len(grams.orders[0].keys))
    for order in range(1, len(members)):
        rows = np.flatnonzero(reached[order])
        table = grams.orders[order]
        levels.append((key_of(index[table.prefixes[rows]], table.units[rows]), members[order][rows]))
        index = np.full(len(table.keys), NONE)
        index[rows] = np.arange(len(rows))
    return Binding(tuple(grams.names), tuple(levels), units)


class Level(NamedTuple):
    """Of an order: the n-grams that a member of the set begins with, which are members, and at which hashes there is one of them."""

    keys: Array
    is_member: Array
    filter: Array  # bool [2 ** FILTER_BITS]

    def find(self, prefixes: Array, units: Array) -> Array:
        """The places of (prefix, unit), int64 [queries], NONE where it is not there; most of what is not there meets no search."""
        wanted = key_of(prefixes, units)
        found = np.full(len(wanted), NONE)
        asked = np.flatnonzero(self.filter[_hash(wanted)])
        if len(self.keys):
            places = np.minimum(np.searchsorted(self.keys, wanted[asked]), len(self.keys) - 1)
            found[asked] = np.where(self.keys[places] == wanted[asked], places, NONE)
        return found


class Binder:
    """Finds which neighbours the n-grams of a set bind."""

    def __init__(self, binding: Binding) -> None:
        self._units: UnitKind = binding.units
        self._numbers = Numbers(binding.names)
        self._levels: list[Level] = []
        for keys, is_member in binding.levels:
            filter = np.zeros(1 << FILTER_BITS, bool)
            filter[_hash(keys)] = True
            self._levels.append(Level(keys, is_member, filter))

    def cut(self, texts: Sequence[str]) -> tuple[Units, Array]:
        """The units of texts, and of each whether it is bound to the one behind it, bool [units]; a break is bound to nothing."""
        found = cut_units(texts, self._units)
        return found, self._bonds(self._numbers.of(found))

    def _bonds(self, ids: Array) -> Array:
        bound = np.zeros(len(ids), bool)
        padded = np.concatenate([ids, np.zeros(len(self._levels), ids.dtype)])
        begins = np.flatnonzero(ids)
        found = ids[begins] - 1
        for order, level in enumerate(self._levels, start=2):
            units = padded[begins + order - 1]
            goes_on = units > 0
            begins, found = begins[goes_on], level.find(found[goes_on], units[goes_on])
            is_there = found != NONE
            begins, found = begins[is_there], found[is_there]
            members = begins[level.is_member[found]]
            for place in range(order - 1):
                bound[members + place] = True
        return bound


def _hash(keys: Array) -> Array:
    with np.errstate(over="ignore"):
        return (keys * SPREAD) >> np.uint64(64 - FILTER_BITS)


@dataclass(frozen=True)
class Cut(Tokenizer):
    """The rows of units between two cuts, each a token; breaks are none."""

    binding: Binding

    block: ClassVar[int] = 1 << 21

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        found = self._explode(pl.Series(texts, dtype=pl.String)).collect()
        lists: list[list[str]] = [[] for _ in texts]
        for document, token in found.iter_rows():
            lists[document].append(token)
        return lists

    def _explode(self, texts: pl.Series) -> pl.LazyFrame:
        documents = texts.to_list()
        units, bonds = _binder(self.binding).cut(documents)
        begins = np.concatenate([[True], ~bonds[:-1]]) if len(bonds) else bonds
        places = units.starts[begins]
        tokens = pieces_by_character(units.text, units.code_points, places)
        ends = np.cumsum([len(document) + 1 for document in documents])
        numbers = np.searchsorted(ends, places, side="right").astype(np.uint32)
        frame = pl.DataFrame({"document": numbers, "token": tokens})
        return frame.filter(pl.Series(units.kinds[begins] != BREAK)).lazy()


@functools.lru_cache(2)
def _binder(binding: Binding) -> Binder:
    return Binder(binding)


def cut(binding: Binding, normalise: tuple[str, ...] = ()) -> Cut:
    """The tokenizer that cuts where no n-gram of a set binds."""
    return Cut(
        "cut",
        f"cut {binding.digest} {normalisation_version(normalise)} {_code_version()}",
        normalise,
        binding,
    )


@functools.cache
def _code_version() -> str:
    return version_of("discovery.cutting")
