"""How a template is written: its words and placeholders with a space between them, as in `X 的 X`.

A word of a text may be X, or hold a space, so it is written with backslashes: `\\X` is the word X, `\\s`, `\\n`, `\\t`
and `\\r` are white space within a word, `\\\\` is a backslash. Different templates are different texts.
"""

import itertools
import re
from collections.abc import Iterable

import polars as pl

HOLE = "X"
Part = str | None  # a word, or None: a placeholder, which stands for one or more words

_ESCAPES = {"\\": "\\\\", " ": r"\s", "\n": r"\n", "\t": r"\t", "\r": r"\r"}  # the backslash first
_ESCAPE = re.compile(r"\\.?", re.DOTALL)
_PLAIN = {written: plain for plain, written in _ESCAPES.items()}


def escaped(word: str) -> str:
    """A word as it is written in a template."""
    for plain, written in _ESCAPES.items():
        word = word.replace(plain, written)
    return "\\X" if word == HOLE else word


def escaped_column(words: pl.Expr) -> pl.Expr:
    """The same for a column of words."""
    for plain, written in _ESCAPES.items():
        words = words.str.replace_all(plain, written, literal=True)
    return pl.when(words == HOLE).then(pl.lit("\\X")).otherwise(words)


def text_of(parts: Iterable[Part]) -> str:
    """A template as a text."""
    return " ".join(HOLE if part is None else escaped(part) for part in parts)


def parts_of(text: str) -> tuple[Part, ...]:
    """The parts of a template that is written as a text; ValueError with what is wrong with it."""
    parts = tuple(None if written == HOLE else _unescaped(written) for written in text.split(" "))
    if "" in parts:
        raise ValueError("it is empty or has two spaces in a row")
    if not any(parts):
        raise ValueError("it has no word")
    if any(first is None and second is None for first, second in itertools.pairwise(parts)):
        raise ValueError("it has two placeholders in a row")
    return parts


def _unescaped(written: str) -> str:
    if written == "\\X":
        return HOLE
    if "\\" not in written:
        return written

    def plain(found: re.Match[str]) -> str:
        if found[0] not in _PLAIN:
            raise ValueError(f"{found[0]!r} in it is no escape")
        return _PLAIN[found[0]]

    return _ESCAPE.sub(plain, written)
