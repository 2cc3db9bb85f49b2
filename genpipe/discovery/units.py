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


def rows_of(texts: Sequence[str], kind: UnitKind) -> Rows:
    """The units of documents; with `characters` each letter and digit is a unit, also those of Latin words."""
    text = "\n".join(texts)
    code_points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    kinds = _kinds(code_points, kind)
    before = np.concatenate([[BREAK], kinds[:-1]])
    begins = (kinds == ALONE) | (kinds != before)  # of several characters of a break, or of a run, the first
    starts = np.flatnonzero(begins)
    ids, names = _numbered(text, code_points, kinds, starts)
    return Rows(ids, starts, names, code_points)


def is_row(text: str) -> bool:
    """Whether nothing in a text ends a row of units."""
    return all(_kind_of(ord(character)) != BREAK for character in text)


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


def _kinds(code_points: Array, kind: UnitKind) -> Array:
    """BREAK, ALONE or IN_RUN for each code point, uint8."""
    present = np.flatnonzero(np.bincount(code_points, minlength=1))
    table = np.zeros(int(present[-1]) + 1 if len(present) else 1, np.uint8)
    table[present] = [_kind_of(number) for number in present.tolist()]
    kinds = _with_marks(table[code_points])
    return np.minimum(kinds, ALONE) if kind == "characters" else kinds


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


def _numbered(text: str, code_points: Array, kinds: Array, starts: Array) -> tuple[Array, list[str]]:
    first = kinds[starts]
    alone = code_points[starts[first == ALONE]]
    single = np.flatnonzero(np.bincount(alone, minlength=1)) if len(alone) else alone
    runs = _runs(text, kinds, starts, first)
    names = sorted({*map(chr, single.tolist()), *runs})
    if len(names) >= 2**31:
        raise BadInput(
            f"{len(names):,} different units in a part of the text; take smaller shards (shard_bytes)"
        )
    numbers = {name: number for number, name in enumerate(names, start=1)}
    table = np.zeros(CODE_POINTS if len(single) else 1, np.int64)
    table[single] = [numbers[chr(number)] for number in single.tolist()]
    ids = np.zeros(len(starts), np.int64)
    ids[first == ALONE] = table[alone]
    ids[first == IN_RUN] = [numbers[run] for run in runs]
    return ids, names


def _runs(text: str, kinds: Array, starts: Array, first: Array) -> list[str]:
    begins = starts[first == IN_RUN]
    if not len(begins):
        return []
    ends = np.append(starts, len(kinds))[1:][first == IN_RUN]
    return [text[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
