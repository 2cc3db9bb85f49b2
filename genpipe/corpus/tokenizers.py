"""Tokenizers: text to words or characters, by name. White space is dropped by all of them."""

import functools
import importlib.metadata
import re
import unicodedata
from collections.abc import Callable

import rjieba

from genpipe.errors import BadInput

Split = Callable[[str], list[str]]

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def split_words(text: str) -> list[str]:
    """Runs of letters, digits and _ of any script, apostrophes inside them included; case is kept."""
    return _WORD.findall(text)


def split_characters(text: str) -> list[str]:
    """Every character that is not white space, and every newline, so that lines can be told apart again."""
    return [character for character in text if character == "\n" or not character.isspace()]


def split_chinese(text: str) -> list[str]:
    """Chinese words and the punctuation between them, by jieba's dictionary and hidden Markov model."""
    return [word for word in rjieba.cut(text, True) if not word.isspace()]


_TOKENIZERS: dict[str, Split] = {"jieba": split_chinese, "character": split_characters, "word": split_words}


def tokenizer(name: str) -> Split:
    """The tokenizer of that name: a plain function that can be sent to another process."""
    if name not in _TOKENIZERS:
        raise BadInput(f"no tokenizer {name!r}; there are: {', '.join(_TOKENIZERS)}")
    return _TOKENIZERS[name]


@functools.cache
def tokenizer_version(name: str) -> str:
    """What its tokens depend on besides genpipe's code: the dictionary's release and Python's Unicode tables."""
    rules = importlib.metadata.version("rjieba") if name == "jieba" else "-"
    return f"{name} {rules} unicode {unicodedata.unidata_version}"
