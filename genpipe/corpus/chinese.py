"""Chinese words, as jieba finds them (dictionary, hidden Markov model), by rjieba: 20 times as fast, and made equal.

rjieba differs in two things. It leaves ASCII whole that jieba cuts once more, and it joins rare Han characters to words.
"""

import functools
import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

_ASCII_WORD = re.compile(r"([a-zA-Z0-9]+(?:\.\d+)?%?)")  # jieba's own, of its HMM stage
# jieba joins them to letters, digits and Han; then it cuts by _ASCII_WORD
_JOINING = re.compile(r"[+#&._%-]")
_JIEBA_ASCII_WORDS = {"AT&T", "c#", "C#", "c++", "C++"}  # all of them that its dictionary has
# Han characters that rjieba joins to words, and jieba, which knows U+4E00 to U+9FD5 alone, does not
_RARE_HAN = re.compile("([\u3400-\u4dbf\u9fd6-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
_SPECIAL = re.compile(rf"\s|{_JOINING.pattern}|{_RARE_HAN.pattern}")  # a text without needs no fix-up

# Put between documents and around rare characters: a word of its own to rjieba, and never a part of one
_END, _APART = "\0", "\1"
_SPACES = (*"\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
           "\u2028\u2029\u202f\u205f\u3000", "\r\n")  # fmt: skip


def split_chinese(text: str) -> list[str]:
    """The words of one text and the punctuation between them."""
    if not _SPECIAL.search(text):
        return _rjieba()(text, True)
    tokens: list[str] = []
    for index, part in enumerate(_RARE_HAN.split(text)):
        tokens += [part] if index % 2 else _split_by_rjieba(part)
    return tokens


def split_chinese_slowly(text: str) -> list[str]:
    """The same by jieba itself, the reference."""
    return [word for word in _jieba().lcut(text) if not word.isspace()]


def explode_chinese(texts: pl.Series) -> pl.DataFrame:
    """What `split_chinese` finds in all texts, in order: columns document (u32, the index of its text) and token.

    All texts are cut as one, and polars mends the words: that takes half the time.
    """
    if texts.str.contains(f"[{_END}{_APART}]").any():
        return exploded([split_chinese(text) for text in texts.to_list()])
    whole = _RARE_HAN.sub(rf"{_APART}\1{_APART}", _END.join([*texts.to_list(), ""]))
    words = pl.Series("token", _rjieba()(whole, True), dtype=pl.String)
    is_end = words == _END
    dropped = is_end | words.is_in([*_SPACES, _APART])
    frame = pl.DataFrame([is_end.cast(pl.UInt32).cum_sum().alias("document"), words])
    return _with_ascii_cut(frame.filter(~dropped))


def exploded(documents: Sequence[Sequence[str]]) -> pl.DataFrame:
    """The tokens of all documents in order: columns document (u32) and token."""
    import numpy as np  # not before it is needed: the start of a process that counts

    lengths = np.fromiter(map(len, documents), np.int64, len(documents))
    tokens = list(itertools.chain.from_iterable(documents))
    numbers = np.repeat(np.arange(len(documents), dtype=np.uint32), lengths)
    return pl.DataFrame({"document": numbers, "token": pl.Series(tokens, dtype=pl.String)})


def _with_ascii_cut(frame: pl.DataFrame) -> pl.DataFrame:
    """Words of ASCII that jieba cuts once more are replaced by their pieces."""
    words = frame["token"]
    suspects = ((words < "\x7f") & (words.str.len_bytes() > 1)).to_numpy()
    pieces = [_pieces(word) for word in words.filter(suspects).to_list()]
    if not any(len(some) > 1 for some in pieces):
        return frame
    import numpy as np

    # the pieces stand behind the words, and each row says which of them it takes
    lengths = np.ones(len(words), np.int64)
    lengths[suspects] = [len(some) for some in pieces]
    rows = np.repeat(np.arange(len(words)), lengths)
    flat = list(itertools.chain.from_iterable(pieces))
    sources = rows.copy()
    sources[np.repeat(suspects, lengths)] = len(words) + np.arange(len(flat))
    found = pl.concat([words, pl.Series("token", flat, dtype=pl.String)])
    return pl.DataFrame([frame["document"].gather(rows), found.gather(sources)])


def _split_by_rjieba(text: str) -> list[str]:
    words = [word for word in _rjieba()(text, True) if not word.isspace()]
    if not _JOINING.search(text):
        return words
    return [piece for word in words for piece in _pieces(word)]


def _pieces(word: str) -> Sequence[str]:
    """What jieba makes of a word of rjieba: it cuts ASCII that is not in its dictionary once more."""
    if len(word) == 1 or word.isalnum() or not word.isascii() or word in _JIEBA_ASCII_WORDS:
        return (word,)
    return _ascii_pieces(word)


@functools.lru_cache(1 << 16)
def _ascii_pieces(word: str) -> tuple[str, ...]:
    return tuple(piece for piece in _ASCII_WORD.split(word) if piece)


@functools.cache
def _rjieba() -> Callable[[str, bool], list[str]]:
    import rjieba  # loads its dictionary

    return rjieba.cut


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
