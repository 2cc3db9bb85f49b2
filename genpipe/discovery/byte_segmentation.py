"""The most probable pieces of texts under an n-gram model of bytes, by Viterbi over many rows at once.

A byte has a tag: the first, second, …, fifth of its piece, or a later one. With the tag k it scores as the last of an
n-gram of k bytes; any piece may follow any other, at no cost (archives/3956 and 9752, with all weights 1). No piece
begins within a character. Of equal ways the one is taken in which, from the end on, each piece is the shorter.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl

from genpipe.corpus.tokenizers import Tokenizer
from genpipe.discovery.byte_ngrams import MISSING, NgramModel
from genpipe.discovery.byte_windows import ORDER, Numbers, Rows, is_continuation, rows_of, windows
from genpipe.discovery.pieces import pieces

FORBIDDEN = -(1 << 51)  # score of a piece that begins within a character: worse than any row without
TAG_BITS = 3


@dataclass(frozen=True)
class BytePieces(Tokenizer):
    """The pieces of texts, which together are the texts; `model` is the folder of the n-grams."""

    model: Path

    block: ClassVar[int] = 1 << 20

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        found: list[list[str]] = [[] for _ in texts]
        for document, token in self._explode(pl.Series(texts, dtype=pl.String)).collect().iter_rows():
            found[document].append(token)
        return found

    def _explode(self, texts: pl.Series) -> pl.LazyFrame:
        rows = rows_of(texts)
        begins = piece_starts(rows, _model(self.model))
        starts = np.flatnonzero(begins)
        numbers = np.repeat(rows.documents, rows.lengths)[starts].astype(np.uint32)
        return pl.LazyFrame({"document": numbers, "token": pieces(rows.data, starts)})


@functools.lru_cache(1)
def _model(folder: Path) -> NgramModel:
    return NgramModel(folder)


def piece_starts(rows: Rows, model: NgramModel) -> np.ndarray:
    """[bytes], whether a piece begins at each."""
    if not len(rows.data):
        return np.zeros(0, bool)
    order = _TimeOrder(rows)
    begins = _viterbi(_emissions(rows, model, order), order.active)
    return begins[order.places]


class _TimeOrder:
    """An order of bytes in which the first bytes of all rows stand together, then all second ones; long rows first."""

    def __init__(self, rows: Rows) -> None:
        lengths = rows.lengths
        by_length = np.argsort(-lengths, kind="stable")
        rank = np.empty(len(lengths), np.int64)
        rank[by_length] = np.arange(len(lengths))
        # rows that have a byte at each time
        self.active = len(lengths) - np.cumsum(np.bincount(lengths))[: lengths.max()]
        time = np.arange(len(rows.data)) - np.repeat(rows.starts, lengths)
        self.places = _starts(self.active)[time] + np.repeat(rank, lengths)


def _emissions(rows: Rows, model: NgramModel, order: _TimeOrder) -> Numbers:
    """[ORDER, bytes in time order], the scores of each byte with each tag."""
    found = np.full((ORDER, len(rows.data)), MISSING, np.int64)
    window, reach = windows(rows)
    for length, scores in model.scores(window, reach):
        # an n-gram scores its last byte
        found[length - 1, order.places[length - 1 :]] = scores[: max(0, len(scores) - length + 1)]
    found[0, order.places[is_continuation(rows.data)]] = FORBIDDEN
    return found


def _viterbi(emissions: Numbers, active: Numbers) -> np.ndarray:
    """[bytes in time order], whether the best way has a piece begin at each."""
    best_tags = np.empty(emissions.shape[1], np.uint8)  # of the best way up to each byte
    stays = np.empty(emissions.shape[1], bool)  # whether a later tag follows a later one, and not the fifth
    # a smaller tag wins among equal scores
    ranks = np.arange(ORDER - 1, -1, -1)[:, None]
    starts = _starts(active)
    scores = emissions[:, : active[0]].copy()
    scores[1:] = 2 * FORBIDDEN  # a row begins with the first byte of a piece
    for time, start in enumerate(starts):
        here = slice(start, start + active[time])
        packed = ((scores << TAG_BITS) | ranks).max(axis=0)
        best_tags[here] = ORDER - 1 - (packed & (ORDER + 1))
        if time + 1 == len(active):
            break
        size = active[time + 1]
        then = slice(start + active[time], start + active[time] + size)
        later = np.greater(scores[-1, :size], scores[-2, :size], out=stays[then])
        following = emissions[:, then]
        after = np.empty((ORDER, size), np.int64)
        after[0] = packed[:size] >> TAG_BITS
        after[1:] = scores[:-1, :size]
        np.copyto(after[-1], scores[-1, :size], where=later)
        after += following
        scores = after
    return _best_way(best_tags, stays, starts, active)


def _best_way(best_tags: np.ndarray, stays: np.ndarray, starts: Numbers, active: Numbers) -> np.ndarray:
    """Back from the last byte of each row."""
    begins = np.empty(len(best_tags), bool)
    tags = np.empty(0, np.uint8)
    for time in range(len(active) - 1, -1, -1):
        here = slice(starts[time], starts[time] + active[time])
        tags = np.concatenate([tags, best_tags[here][len(tags) :]])
        is_first = np.equal(tags, 0, out=begins[here])
        if time:
            before = starts[time - 1]
            previous = best_tags[before : before + len(tags)]
            stay = (tags == ORDER - 1) & stays[here]
            tags = np.where(is_first, previous, tags - ~stay)
    return begins


def _starts(active: Numbers) -> Numbers:
    return np.cumsum(active) - active
