"""Chinese words exactly as jieba finds them, but faster: all texts are cut at once.

rjieba finds the words of the dictionary. What the dictionary leaves as single characters is cut here, because rjieba's
own hidden Markov model has rounded probabilities (it joins 常在 where jieba does not), and because rjieba keeps ASCII
whole that jieba cuts. Rare Han characters, which rjieba joins to words and jieba does not, are hidden from it.
"""

import functools
import itertools
import re
import string
import sys
import warnings
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from genpipe.corpus.hidden_markov import FIRST_HAN, LAST_HAN, word_starts

_ASCII_WORD = re.compile(r"([a-zA-Z0-9]+(?:\.\d+)?%?)")  # jieba's own, of its HMM stage
# Han characters that rjieba joins to words, and jieba, which knows U+4E00 to U+9FD5 alone, does not
_RARE_HAN = re.compile("[\u3400-\u4dbf\u9fd6-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
# Ends a document, and stands for a rare character while rjieba cuts: a word of its own there, never a part of one
_APART = "\0"

Runs = tuple[np.ndarray, np.ndarray]  # first indices, and those behind the last

# What a character is to jieba; a block, which its dictionary is looked up in, is a run of the first three
_HAN, _ALPHANUMERIC, _SYMBOL, _SPACE, _OTHER = range(1, 6)


def split_chinese(text: str) -> list[str]:
    """The words of one text and the punctuation between them."""
    return explode_chinese(pl.Series([text], dtype=pl.String))["token"].to_list()


def split_chinese_slowly(text: str) -> list[str]:
    """The same by jieba itself, the reference."""
    return [word for word in _jieba().lcut(text) if not word.isspace()]


def explode_chinese(texts: pl.Series) -> pl.DataFrame:
    """The words of all texts, in order: columns document (u32, the index of its text) and token."""
    if not len(texts):
        return pl.DataFrame(schema={"document": pl.UInt32, "token": pl.String})
    whole = _APART.join([*texts.to_list(), ""])
    points = np.frombuffer(whole.encode("utf-32-le"), np.uint32)
    kinds = _kinds()[points]
    starts = np.flatnonzero(_is_start(whole, points, kinds))
    ends = np.cumsum(texts.str.len_chars().to_numpy().astype(np.int64) + 1) - 1  # of documents
    last = np.searchsorted(starts, ends)  # word of each document, which stands for its end
    documents = np.repeat(np.arange(len(ends), dtype=np.uint32), np.diff(last, prepend=-1))
    kept = kinds[starts] != _SPACE
    kept[last] = False
    frame = pl.DataFrame({"document": documents, "token": _slices(whole, points, starts)})
    return frame.filter(pl.Series(kept))


def _is_start(text: str, points: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Of each character, whether a word starts with it."""
    words = _rjieba().cut(_RARE_HAN.sub(_APART, text), False)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    starts = np.cumsum(lengths) - lengths
    is_start = np.zeros(len(points), bool)
    is_start[starts] = True
    # rjieba joins letters and digits that the dictionary leaves single
    joined = np.add.reduceat(kinds == _ALPHANUMERIC, starts) == lengths
    single = np.repeat((lengths == 1) | joined, lengths)
    loose = single & (kinds <= _SYMBOL)
    for first, stop in _words_among(text, points, _runs(loose)):
        is_start[first:stop] = True
        loose[first:stop] = False
    is_start &= ~loose
    is_han = loose & (kinds == _HAN)
    is_start[word_starts(points, *_runs(is_han))] = True
    is_start[_ascii_starts(text, kinds == _SYMBOL, _runs(loose & ~is_han))] = True
    return is_start


def _words_among(text: str, points: np.ndarray, runs: Runs) -> list[tuple[int, int]]:
    """The runs of single characters that are words all the same, less probable than their characters: they stay cut.

    A word of count w and k characters is one only if their Σ ln(count) > ln(w) + (k - 1) ln(total), which few runs fulfil.
    """
    first, stop = runs
    logarithms, total = _character_counts()
    sums = np.concatenate([[0], np.cumsum(np.take(logarithms, points, mode="clip"))])
    lengths = stop - first
    # the margin is beyond any rounding of the sums
    possible = (lengths > 1) & (sums[stop] - sums[first] > (lengths - 1) * total - 1e-3)
    pairs = zip(first[possible].tolist(), stop[possible].tolist(), strict=True)
    has_word = _rjieba().has_word
    return [(a, b) for a, b in pairs if has_word(text[a:b])]


def _ascii_starts(text: str, is_symbol: np.ndarray, runs: Runs) -> np.ndarray:
    """Where words start in runs of ASCII; one without symbols is a word."""
    first, stop = runs
    before = np.concatenate([[0], np.cumsum(is_symbol)])
    mixed = before[stop] > before[first]
    pairs = zip(first[mixed].tolist(), stop[mixed].tolist(), strict=True)
    inner = [a + start for a, b in pairs for start in _piece_starts(text[a:b])]
    return np.concatenate([first, np.array(inner, np.int64)])


@functools.lru_cache(1 << 16)
def _piece_starts(run: str) -> tuple[int, ...]:
    ends = itertools.accumulate(len(piece) for piece in _ASCII_WORD.split(run))
    return tuple(end for end in ends if end < len(run))


def _runs(flags: np.ndarray) -> Runs:
    """The first index, and the one behind the last, of each run of true flags."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return edges[::2], edges[1::2]


def _slices(text: str, points: np.ndarray, starts: np.ndarray) -> pl.Series:
    """The text cut at `starts`, without a Python string for each piece."""
    data = text.encode()
    widths = 1 + (points > 0x7F).astype(np.uint8) + (points > 0x7FF) + (points > 0xFFFF)  # in UTF-8
    before = np.cumsum(widths, dtype=np.int64) - widths
    offsets = np.append(before[starts], len(data))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    pieces = pa.Array.from_buffers(pa.large_string(), len(starts), buffers)
    return pl.Series("token", pieces)


@functools.cache
def _kinds() -> np.ndarray:
    """Of each code point, what it is to jieba."""
    kinds = np.full(sys.maxunicode + 1, _OTHER, np.uint8)
    kinds[FIRST_HAN : LAST_HAN + 1] = _HAN
    for kind, characters in (
        (_ALPHANUMERIC, string.ascii_letters + string.digits),
        (_SYMBOL, "+#&._%-"),
        (_SPACE, filter(str.isspace, map(chr, range(sys.maxunicode + 1)))),
    ):
        kinds[list(map(ord, characters))] = kind
    return kinds


@functools.cache
def _character_counts() -> tuple[np.ndarray, float]:
    """The logarithms of the counts of code points, 0 for those without (and for the last), and of the sum of the counts."""
    # of a character that is a word rjieba suggests its count, or one more
    counts = [_rjieba().suggest_freq(chr(point)) for point in range(FIRST_HAN, LAST_HAN + 1)]
    logarithms = np.zeros(LAST_HAN + 2)
    logarithms[FIRST_HAN : LAST_HAN + 1] = np.log(np.maximum(counts, 1))
    return logarithms, float(np.log(sum(counts) - len(counts)))


@functools.cache
def _rjieba() -> Any:
    import rjieba  # loads its dictionary

    return rjieba


@functools.cache
def _jieba() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an escape in its source, of pkg_resources
        import jieba
    words = jieba.Tokenizer()
    # not initialize(): it trusts any jieba.cache in the temporary directory, of whatever version, and logs
    words.FREQ, words.total = words.gen_pfdict(words.get_dict_file())
    words.initialized = True
    return words
