"""The most probable split of texts into given pieces (a unigram model over bytes), by Viterbi over many texts at once.

A piece scores ln(count) - ln(all counts), both rounded to whole numbers of 1/SCALE: sums are then exact, here and in the
doubles of Hugging Face's Unigram model, and both take the same split. Of equal splits it is the one in which, from the end
on, each piece is the longer. A piece covers whole characters; any other character is spelled with single bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genpipe.discovery.byte_ngrams import MISSING, logarithms
from genpipe.discovery.byte_windows import Numbers

CELLS = 1 << 21  # places times lengths that are held at once
CODE_BITS = 21  # of a character
NOWHERE = -1


@dataclass(frozen=True)
class Pieces:
    """Pieces of two bytes or more, all different, and all 256 single bytes, with their counts."""

    texts: list[str]
    counts: Numbers  # [pieces]
    byte_counts: Numbers  # [256]

    def scores(self) -> tuple[Numbers, Numbers]:
        """Of the pieces and of the bytes, in 1/SCALE of a nat."""
        total = logarithms(self.counts.sum() + self.byte_counts.sum())
        return logarithms(self.counts) - total, logarithms(self.byte_counts) - total


class Splitter:
    """Splits texts into pieces, and counts these."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._scores, self._byte_scores = pieces.scores()
        self._levels = _Levels(pieces.texts)
        self._width = max(1, self._levels.depth)

    def count(self, texts: Sequence[str], weights: Numbers) -> tuple[Numbers, Numbers]:
        """How often the splits of texts use each piece and each byte, where each text counts `weights` times."""
        counts = np.zeros(len(self._pieces.texts), np.int64)
        byte_counts = np.zeros(256, np.int64)
        for some in _batches(texts, CELLS // self._width):
            codes, starts = _codes([texts[int(number)] for number in some])
            times = np.repeat(weights[some], np.diff(starts, append=len(codes)))
            ends, pieces = self._ways(codes, starts)
            is_piece = pieces != NOWHERE
            np.add.at(counts, pieces[is_piece], times[ends[is_piece]])
            spelled = ends[~is_piece]
            for value, owner in _spelling(codes[spelled]):
                np.add.at(byte_counts, value, times[spelled[owner]])
        return counts, byte_counts

    def split(self, text: str) -> list[bytes]:
        """The pieces of one text, spelled characters byte by byte."""
        codes, starts = _codes([text])
        found: list[bytes] = []
        before = 0
        for end, piece in zip(*self._ways(codes, starts), strict=True):
            part = text[before : end + 1].encode()
            found += [part] if piece != NOWHERE else [bytes([byte]) for byte in part]
            before = end + 1
        return found

    def score(self, text: str) -> int:
        """Of the best split of a text."""
        of = dict(zip(self._pieces.texts, self._scores.tolist(), strict=True))
        parts = self.split(text)
        return sum(self._byte_scores[part[0]] if len(part) == 1 else of[part.decode()] for part in parts)

    def _ways(self, codes: Numbers, starts: Numbers) -> tuple[Numbers, Numbers]:
        """Where, at which character, each piece of the best splits of all texts ends, and which it is; NOWHERE is spelled."""
        if not len(codes):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        scores, pieces = self._edges(codes, starts)
        columns = _viterbi(scores, starts)
        ends = _best_ends(self._width - columns, starts, len(codes))
        return ends, pieces[ends, columns[ends]]

    def _edges(self, codes: Numbers, starts: Numbers) -> tuple[Numbers, Numbers]:
        """[characters, width], the score and the number of the piece that ends there, the longest first."""
        scores = np.full((len(codes), self._width), MISSING, np.int64)
        pieces = np.full((len(codes), self._width), NOWHERE, np.int64)
        for length, places, found in self._levels.matches(codes, starts):
            scores[places + length - 1, self._width - length] = self._scores[found]
            pieces[places + length - 1, self._width - length] = found
        spelled = np.zeros(len(codes), np.int64)
        for value, owner in _spelling(codes):
            spelled[owner] += self._byte_scores[value]
        is_spelled = spelled > scores[:, -1]
        scores[is_spelled, -1] = spelled[is_spelled]
        pieces[is_spelled, -1] = NOWHERE
        return scores, pieces


class _Levels:
    """The beginnings of all pieces, by their length in characters: each is a beginning one shorter, and a character."""

    def __init__(self, texts: Sequence[str]) -> None:
        codes, starts = _codes(texts)
        lengths = np.diff(starts, append=len(codes))
        self.depth = int(lengths.max(initial=0))
        self._keys: list[Numbers] = []
        self._pieces: list[Numbers] = []  # NOWHERE is none
        node = np.zeros(len(texts), np.int64)
        numbers = np.arange(len(texts))
        for length in range(1, self.depth + 1):
            is_long = lengths[numbers] >= length
            numbers, node = numbers[is_long], node[is_long]
            keys, node = np.unique(
                node << CODE_BITS | codes[starts[numbers] + length - 1], return_inverse=True
            )
            pieces = np.full(len(keys), NOWHERE, np.int64)
            ends = lengths[numbers] == length
            pieces[node[ends]] = numbers[ends]
            self._keys.append(keys)
            self._pieces.append(pieces)

    def matches(self, codes: Numbers, starts: Numbers) -> Iterator[tuple[int, Numbers, Numbers]]:
        """For each length in characters: where pieces begin, and which."""
        left = np.repeat(np.append(starts[1:], len(codes)), np.diff(starts, append=len(codes))) - np.arange(
            len(codes)
        )
        places, node = np.arange(len(codes)), np.zeros(len(codes), np.int64)
        for length, (keys, pieces) in enumerate(zip(self._keys, self._pieces, strict=True), start=1):
            is_inside = left[places] >= length
            places, node = places[is_inside], node[is_inside]
            wanted = node << CODE_BITS | codes[places + length - 1]
            node = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            is_there = keys[node] == wanted
            places, node = places[is_there], node[is_there]
            is_piece = pieces[node] != NOWHERE
            yield length, places[is_piece], pieces[node[is_piece]]


def _viterbi(scores: Numbers, starts: Numbers) -> Numbers:
    """[characters], the column of the last piece of the best split up to each."""
    size, width = scores.shape
    lengths = np.diff(starts, append=size)
    by_length = starts[np.argsort(-lengths, kind="stable")]
    active = len(starts) - np.cumsum(np.bincount(lengths))[: lengths.max()]
    columns = np.empty(size, np.int64)
    totals = np.full((len(starts), width), MISSING * width, np.int64)  # of the last `width` ends, as a ring
    totals[:, -1] = 0
    for time, number in enumerate(active):
        ends = by_length[:number] + time
        ring = (np.arange(width) + time) % width  # the oldest first, as columns are
        ways = totals[:number, ring] + scores[ends]
        best = ways.argmax(axis=1)
        columns[ends] = best
        totals[:number, time % width] = ways[np.arange(number), best]
    return columns


def _best_ends(lengths: Numbers, starts: Numbers, size: int) -> Numbers:
    """The last characters of the pieces, ascending; `lengths` are those of the best last piece up to each character."""
    ends = np.append(starts[1:], size) - 1
    found: list[Numbers] = []
    firsts = starts
    while len(ends):
        found.append(ends)
        ends = ends - lengths[ends]
        goes_on = ends >= firsts
        ends, firsts = ends[goes_on], firsts[goes_on]
    return np.sort(np.concatenate(found))


def _codes(texts: Sequence[str]) -> tuple[Numbers, Numbers]:
    """The characters of all texts, and where each text begins; none is empty."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.int64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return codes, np.cumsum(lengths) - lengths


def _batches(texts: Sequence[str], most: int) -> Iterator[Numbers]:
    """Numbers of texts, long ones together, of `most` characters in all or of one text."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    by_length = np.argsort(lengths, kind="stable")
    ends = np.cumsum(lengths[by_length])
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield by_length[start:end]
        start = end


def _spelling(codes: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """The first, second, … bytes of the characters in UTF-8, and the places of the characters that have them."""
    places = np.arange(len(codes))
    length = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    marks = np.array([0, 0, 0xC0, 0xE0, 0xF0])
    for number in range(4):
        has = places[length > number]
        behind = length[has] - 1 - number
        part = codes[has] >> (6 * behind)
        yield (np.where(number == 0, part | marks[length[has]], 0x80 | part & 0x3F)), has
