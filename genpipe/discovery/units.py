"""Units: what words are made of. A unit is a character, or a run of letters and digits of a script that has spaces between words.

Everything else ends a row of units: white space, punctuation, symbols, the end of a document. Nothing found in text goes across such a break.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from genpipe.errors import BadInput

UnitKind = Literal["runs", "characters"]

BREAK, ALONE, IN_RUN, MARK = 0, 1, 2, 3
CODE_POINTS = 0x110000
SPACED = re.compile(
    r"LATIN|GREEK|CYRILLIC|ARMENIAN|GEORGIAN"
)  # in the names of letters of scripts with spaces

Array = np.ndarray


class Rows(NamedTuple):
    """The units of some documents, one after another; a row of units ends at a 0.

    `ids`: int64 [units]: 0 is a break, i the unit `names[i - 1]`. `starts`: the index in `code_points` of each of them.
    `names`: sorted by code point, each of them there.
    """

    ids: Array
    starts: Array
    names: list[str]
    code_points: Array


class Units(NamedTuple):
    """Documents, joined by newlines, cut into units and breaks: `starts` and `kinds` of each of them, int64 and uint8 [units]."""

    text: str
    code_points: Array  # uint32 [characters]
    starts: Array
    kinds: Array

    def runs(self) -> list[str]:
        """The units of several characters."""
        is_run = self.kinds == IN_RUN
        ends = np.append(self.starts, len(self.code_points))[1:][is_run]
        spans = zip(self.starts[is_run].tolist(), ends.tolist(), strict=True)
        return [self.text[begin:end] for begin, end in spans]


class Numbers:
    """The numbers of given units, from 1 on."""

    def __init__(self, names: Sequence[str]) -> None:
        self._numbers = {name: number for number, name in enumerate(names, start=1)}
        self._of_characters = np.zeros(CODE_POINTS, np.int64)
        for name, number in self._numbers.items():
            if len(name) == 1:
                self._of_characters[ord(name)] = number

    def of(self, units: Units) -> Array:
        """The number of each unit, int64 [units]; 0 for a break and for a unit that has none."""
        ids = np.zeros(len(units.starts), np.int64)
        alone = units.kinds == ALONE
        ids[alone] = self._of_characters[units.code_points[units.starts[alone]]]
        ids[units.kinds == IN_RUN] = [self._numbers.get(run, 0) for run in units.runs()]
        return ids


def rows_of(texts: Sequence[str], kind: UnitKind) -> Rows:
    """The units of documents; with `characters` each letter and digit is a unit, also those of Latin words."""
    units = cut_units(texts, kind)
    ids, names = _numbered(units)
    return Rows(ids, units.starts, names, units.code_points)


def cut_units(texts: Sequence[str], kind: UnitKind) -> Units:
    """The same without numbers."""
    text, code_points = _code_points(texts)
    kinds = _with_marks(_kinds(code_points))
    if kind == "characters":
        kinds = np.minimum(kinds, ALONE)
    before = np.concatenate([[BREAK], kinds[:-1]])
    begins = (kinds == ALONE) | (kinds != before)  # of several characters of a break, or of a run, the first
    starts = np.flatnonzero(begins)
    return Units(text, code_points, starts, kinds[starts])


def are_rows(texts: Sequence[str]) -> Array:
    """Of each text whether nothing in it ends a row of units, bool [texts]."""
    _, code_points = _code_points(texts)
    breaks = np.concatenate([[0], np.cumsum(_kinds(code_points) == BREAK)])
    lengths = np.array([len(text) for text in texts], np.int64)
    ends = np.cumsum(lengths + 1) - 1  # of a text, before the newline that joins it to the next one
    return breaks[ends] == breaks[ends - lengths]


def _code_points(texts: Sequence[str]) -> tuple[str, Array]:
    text = "\n".join(texts)
    return text, np.frombuffer(text.encode("utf-32-le"), np.uint32)


def split_units(texts: Sequence[str], kind: UnitKind) -> list[list[str]]:
    """The units of each text that is one row, as a word is."""
    if not texts:
        return []
    rows = rows_of(texts, kind)
    found: list[list[str]] = [[]]
    for number in rows.ids.tolist():
        if number:
            found[-1].append(rows.names[number - 1])
        else:
            found.append([])
    return found


def _kinds(code_points: Array) -> Array:
    """BREAK, ALONE, IN_RUN or MARK for each code point, uint8."""
    present = np.flatnonzero(np.bincount(code_points, minlength=1))
    table = np.zeros(int(present[-1]) + 1 if len(present) else 1, np.uint8)
    table[present] = [_kind_of(number) for number in present.tolist()]
    return table[code_points]


def _with_marks(kinds: Array) -> Array:
    """A combining mark goes on with the run that it stands in; elsewhere, as in Thai, it is a unit."""
    if not (kinds == MARK).any():
        return kinds
    places = np.arange(len(kinds))
    bases = np.maximum.accumulate(np.where(kinds == MARK, 0, places))
    return np.where(kinds == MARK, np.where(kinds[bases] == IN_RUN, IN_RUN, ALONE), kinds).astype(np.uint8)


@functools.lru_cache(None)
def _kind_of(code_point: int) -> int:
    character = chr(code_point)
    category = unicodedata.category(character)
    if category == "Nd":  # digits of any script
        return IN_RUN
    if category[0] == "M":
        return MARK
    if category[0] not in "LN":
        return BREAK
    return IN_RUN if SPACED.match(_base_name(character)) else ALONE


def _base_name(character: str) -> str:
    """The Unicode name, without what says that it is wide."""
    return unicodedata.name(character, "").removeprefix("FULLWIDTH ")


def _numbered(units: Units) -> tuple[Array, list[str]]:
    """The number of each unit among all units that are there, and these, sorted."""
    alone = units.code_points[units.starts[units.kinds == ALONE]]
    single = np.flatnonzero(np.bincount(alone, minlength=1)) if len(alone) else alone
    runs = units.runs()
    names = sorted({*map(chr, single.tolist()), *runs})
    if len(names) >= 2**31:
        raise BadInput(
            f"{len(names):,} different units in a part of the text; take smaller shards (shard_bytes)"
        )
    numbers = {name: number for number, name in enumerate(names, start=1)}
    table = np.zeros(CODE_POINTS if len(single) else 1, np.int64)
    table[single] = [numbers[chr(number)] for number in single.tolist()]
    ids = np.zeros(len(units.starts), np.int64)
    ids[units.kinds == ALONE] = table[alone]
    ids[units.kinds == IN_RUN] = [numbers[run] for run in runs]
    return ids, names
