"""Tokenizers: text to words, characters or pieces of words, by name. White space is no token, but for what is said.

A tokenizer is a small value that can be sent to another process; dictionaries and models are loaded there, once.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import re
import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import polars as pl

from genpipe.corpus.lexicon import Lexicon, read_lexicon
from genpipe.corpus.normalisation import normalisation_version, normaliser
from genpipe.errors import BadInput
from genpipe.files import existing
from genpipe.params.corpora import FILE_TOKENIZERS, Corpus, TokenizerName

if TYPE_CHECKING:
    import tokenizers

Split = Callable[[str], list[str]]

NAMES: tuple[str, ...] = get_args(TokenizerName)
BATCH = 256  # texts that a Hugging Face model holds at once

_ASCII_WORD = re.compile(r"([a-zA-Z0-9]+(?:\.\d+)?%?)")  # jieba's own, of its HMM stage
_JOINING = re.compile(
    r"[+#&._%-]"
)  # jieba joins them to letters, digits and Han; then it cuts by _ASCII_WORD
_JIEBA_ASCII_WORDS = {"AT&T", "c#", "C#", "c++", "C++"}  # all of them that its dictionary has
# Han characters that rjieba joins to words, and jieba, which knows U+4E00 to U+9FD5 alone, does not
_RARE_HAN = re.compile("([\u3400-\u4dbf\u9fd6-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
_SPECIAL = re.compile(rf"\s|{_JOINING.pattern}|{_RARE_HAN.pattern}")  # a text without needs no fix-up


@dataclass(frozen=True)
class Tokenizer(ABC):
    """Cuts texts into tokens, after the steps of `normalise`; `version` names all its tokens depend on but our code."""

    name: str
    version: str
    normalise: tuple[str, ...]

    def split(self, text: str) -> list[str]:
        """The tokens of one text."""
        return self.split_all([text])[0]

    def split_all(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each text."""
        return self._split_all(self._normalised(texts))

    def _normalised(self, texts: Sequence[str]) -> Sequence[str]:
        return list(map(normaliser(self.normalise), texts)) if self.normalise else texts

    @abstractmethod
    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each normalised text."""


@dataclass(frozen=True)
class Simple(Tokenizer):
    """A plain function, a text at a time."""

    cut: Split

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        return [self.cut(text) for text in texts]


@dataclass(frozen=True)
class Vectorised(Tokenizer):
    """Cut by polars: many texts at once, on all its threads, without a Python string a token."""

    def lists(self, texts: pl.Series) -> pl.Series:
        """The tokens of each text, as a list of strings each."""
        if self.normalise:
            return self._cut(pl.Series(self._normalised(texts.to_list()), dtype=pl.String))
        return self._cut(texts)

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        return self._cut(pl.Series(texts, dtype=pl.String)).to_list()

    def _cut(self, texts: pl.Series) -> pl.Series:
        query = texts.to_frame("text").lazy().select(_CUTS[self.name](pl.col("text")))
        return query.collect(engine="streaming").to_series()


@dataclass(frozen=True)
class HuggingFace(Tokenizer):
    """A Hugging Face `tokenizers` file; its text travels along, so that the file need not be where the actors are."""

    definition: str

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        model, tokens = _model(self.definition)
        encode = model.encode_batch_fast  # its results have ids, but no tokens
        batches = (list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH))
        found = (one for batch in batches for one in encode(batch, add_special_tokens=False))
        return [[tokens[number] for number in one.ids] for one in found]


@dataclass(frozen=True)
class WithLexicon(Tokenizer):
    """The most probable words of a lexicon (see genpipe.corpus.lexicon); the text of its file travels along."""

    definition: str
    file: Path

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        lexicon = _lexicon(self.definition, self.file)
        return [lexicon.split(text) for text in texts]


def tokenizer(name: str, *, normalise: Sequence[str] = (), file: Path | None = None) -> Tokenizer:
    """The tokenizer of that name, one of NAMES; `file` is the model or lexicon of those that have one."""
    if name not in NAMES:
        raise BadInput(f"no tokenizer {name!r}; there are: {', '.join(NAMES)}")
    if name in FILE_TOKENIZERS:
        if file is None:
            raise BadInput(
                f"tokenizer {name}: wanted the file that defines it, got none; name a tokenizer file"
            )
        return _from_file(name, tuple(normalise), file)
    if file is not None:
        raise BadInput(
            f"tokenizer {name}: wanted no file, got {file}; drop it, or take one of: {', '.join(FILE_TOKENIZERS)}"
        )
    return _built_in(name, tuple(normalise))


def corpus_tokenizer(root: Path, corpus: Corpus) -> Tokenizer:
    """The tokenizer that a corpus of the project at `root` asks for."""
    file = root / corpus.tokenizer_file if corpus.tokenizer_file else None
    return tokenizer(corpus.tokenizer, normalise=corpus.normalise, file=file)


def split_chinese(text: str) -> list[str]:
    """Chinese words and the punctuation between them, as jieba finds them (dictionary, hidden Markov model)."""
    if not _SPECIAL.search(text):
        return _rjieba()(text, True)
    tokens: list[str] = []
    for index, part in enumerate(_RARE_HAN.split(text)):
        tokens += [part] if index % 2 else _split_by_rjieba(part)
    return tokens


def split_chinese_slowly(text: str) -> list[str]:
    """The same by jieba itself, the reference: 20 times slower."""
    return [word for word in _jieba().lcut(text) if not word.isspace()]


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


@functools.cache
def _model(definition: str) -> "tuple[tokenizers.Tokenizer, dict[int, str]]":
    """A Hugging Face tokenizer, and the token of each of its ids."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a process a core is enough
    from tokenizers import Tokenizer as Model

    model = Model.from_str(definition)
    model.no_padding()
    model.no_truncation()
    return model, {number: token for token, number in model.get_vocab().items()}


@functools.lru_cache(1)  # a large one takes much memory
def _lexicon(definition: str, file: Path) -> Lexicon:
    return read_lexicon(definition, file)


def _built_in(name: str, normalise: tuple[str, ...]) -> Tokenizer:
    unicode = f"unicode {unicodedata.unidata_version}"
    if name in _CUTS:
        return Vectorised(
            name, _version(name, f"polars {importlib.metadata.version('polars')}", normalise), normalise
        )
    cut, package = _FUNCTIONS[name]
    needs = f"{package} {importlib.metadata.version(package)} {unicode}"
    return Simple(name, _version(name, needs, normalise), normalise, cut)


def _from_file(name: str, normalise: tuple[str, ...], file: Path) -> Tokenizer:
    definition = _read(file)
    content = f"file {hashlib.sha256(definition.encode()).hexdigest()}"
    if name == "lexicon":
        _lexicon(definition, file)
        unicode = f"unicode {unicodedata.unidata_version}"
        return WithLexicon(
            name, _version(name, f"{content} {unicode}", normalise), normalise, definition, file
        )
    _check_model(name, definition, file)
    needs = f"{content} tokenizers {importlib.metadata.version('tokenizers')}"
    return HuggingFace(name, _version(name, needs, normalise), normalise, definition)


def _version(name: str, needs: str, normalise: Sequence[str]) -> str:
    return f"{name} {needs} normalise {normalisation_version(normalise)}"


def _read(file: Path) -> str:
    try:
        return existing(file, "name a tokenizer file that exists").read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{file}: wanted UTF-8, but byte {error.start} is none; convert the file first"
        ) from None


def _check_model(name: str, definition: str, file: Path) -> None:
    wanted = _MODELS[name]
    try:
        found = json.loads(definition)["model"]["type"]
        _model(definition)
    except Exception as error:  # tokenizers raises no narrower one
        raise BadInput(
            f"{file}: wanted a Hugging Face tokenizer with a model of type {wanted}, "
            f"{type(error).__name__}: {' '.join(str(error).split())}; make one with: genpipe tokenizer train"
        ) from error
    if found != wanted:
        raise BadInput(
            f"{file}: wanted a model of type {wanted}, not {found}; name another tokenizer or file"
        )


def _cut_words(text: pl.Expr) -> pl.Expr:
    return text.str.extract_all(r"\w+(?:['’]\w+)*")  # Rust's \w has the combining marks too


def _cut_at_space(text: pl.Expr) -> pl.Expr:
    # to split at single spaces takes half the time of matching \S+; \s is what Unicode calls white space
    return _split(text.str.replace_all(r"[^\S ]\s*| \s+", " ").str.strip_chars(" "), " ")


def _cut_characters(text: pl.Expr) -> pl.Expr:
    # newlines stay, so that lines can be told apart again
    return _split(text.str.replace_all(r"[^\S\n]+", ""), "")


def _split(text: pl.Expr, by: str) -> pl.Expr:
    return pl.when(text != "").then(text.str.split(by)).otherwise([])  # an empty text has no token, not one


_CUTS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "word": _cut_words,
    "whitespace": _cut_at_space,
    "char": _cut_characters,
}
_FUNCTIONS: dict[str, tuple[Split, str]] = {
    "jieba": (split_chinese, "rjieba"),
    "jieba_python": (split_chinese_slowly, "jieba"),
}
_MODELS = {"bpe": "BPE", "wordpiece": "WordPiece", "unigram": "Unigram"}
