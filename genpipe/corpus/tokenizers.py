"""Tokenizers: text to words, characters or pieces of words, by name.

White space is not a token unless a tokenizer says so. jieba uses Python's definition of white space; the tokenizers of
polars use Unicode's, which excludes U+001C to U+001F.

A tokenizer is a small value that can be sent to another process; dictionaries and models are loaded there, once.
"""

import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

import polars as pl

from genpipe.corpus.lexicon import Lexicon, read_lexicon
from genpipe.corpus.normalisation import normalisation_version, normaliser
from genpipe.errors import BadInput
from genpipe.files import sha256
from genpipe.params.tokenizers import FILE_TOKENIZERS, TokenizerName
from genpipe.params.word_taggers import TAGGED

if TYPE_CHECKING:
    import tokenizers

    from genpipe.corpus.tagger import Definition, Tagger
    from genpipe.params.corpora import Corpus

NAMES: tuple[str, ...] = (*get_args(TokenizerName), TAGGED)
DEFINED = (*FILE_TOKENIZERS, TAGGED)  # those that need a file, or a folder
BATCH = 256  # texts that a Hugging Face model holds at once


@dataclass(frozen=True)
class Tokenizer(ABC):
    """Cuts texts into tokens, after the steps of `normalise`; `version` names all its tokens depend on but our code."""

    name: str
    version: str
    normalise: tuple[str, ...]

    block: ClassVar[int] = 1 << 20  # bytes of text that are best cut at once

    @property
    def on_threads(self) -> bool:
        """Whether threads of one process cut as fast as processes do."""
        return False

    def split(self, text: str) -> list[str]:
        """The tokens of one text."""
        return self.split_all([text])[0]

    def split_all(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each text."""
        return self._split_all(self._normalised(texts))

    def explode(self, texts: pl.Series) -> pl.LazyFrame:
        """The tokens of all texts in order: columns document (u32, the index of its text) and token."""
        if not self.normalise:
            return self._explode(texts)
        return self._explode(pl.Series(self._normalised(texts.to_list()), dtype=pl.String))

    def join(self, tokens: Sequence[str]) -> str:
        """A text of these tokens; white space that `split` removed is not restored."""
        return "".join(tokens)

    def _normalised(self, texts: Sequence[str]) -> Sequence[str]:
        return list(map(normaliser(self.normalise), texts)) if self.normalise else texts

    @abstractmethod
    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each normalised text."""

    def _explode(self, texts: pl.Series) -> pl.LazyFrame:
        return _exploded(self._split_all(texts.to_list())).lazy()


@dataclass(frozen=True)
class Jieba(Tokenizer):
    """Chinese words (see genpipe.corpus.chinese, which imports NumPy and PyArrow: no other tokenizer waits for them)."""

    block: ClassVar[int] = 1 << 21  # nothing to add up in a shard of the usual size

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        return _grouped(self._explode(pl.Series(texts, dtype=pl.String)).collect(), len(texts))

    def _explode(self, texts: pl.Series) -> pl.LazyFrame:
        from genpipe.corpus.chinese import explode_chinese

        return explode_chinese(texts).lazy()


@dataclass(frozen=True)
class SlowJieba(Tokenizer):
    """The same by jieba itself, the reference."""

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        from genpipe.corpus.chinese import split_chinese_slowly

        return list(map(split_chinese_slowly, texts))


@dataclass(frozen=True)
class Vectorised(Tokenizer):
    """Cut by polars: many texts at once, on all its threads, without a Python string a token."""

    block: ClassVar[int] = 1 << 21

    @property
    def on_threads(self) -> bool:
        """Polars leaves Python to others meanwhile, normalisation does not."""
        return not self.normalise

    def join(self, tokens: Sequence[str]) -> str:
        """The tokens with a space between them, characters without."""
        return ("" if self.name == "char" else " ").join(tokens)

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        exploded = self._explode(pl.Series(texts, dtype=pl.String)).collect(engine="streaming")
        return _grouped(exploded, len(texts))

    def _explode(self, texts: pl.Series) -> pl.LazyFrame:
        cut = _CUTS[self.name](pl.col("text")).alias("token")
        lists = texts.to_frame("text").lazy().select(cut).with_row_index("document")
        tokens = lists.explode("token", empty_as_null=False)
        return tokens.filter(pl.col("token") != "")  # empty between two spaces


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

    def join(self, tokens: Sequence[str]) -> str:
        """A text by the decoder of the file; a token that the file does not have stands for itself."""
        model, _ = _model(self.definition)
        texts: list[str] = []
        for known, run in itertools.groupby(tokens, key=lambda token: model.token_to_id(token) is not None):
            words = list(run)
            numbers = [number for word in words if (number := model.token_to_id(word)) is not None]
            texts.append(model.decode(numbers, skip_special_tokens=False) if known else "".join(words))
        return "".join(texts)


@dataclass(frozen=True)
class WithLexicon(Tokenizer):
    """The most probable words of a lexicon (see genpipe.corpus.lexicon); the text of its file travels along."""

    definition: str
    file: Path

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        lexicon = _lexicon(self.definition, self.file)
        return [lexicon.split(text) for text in texts]


@dataclass(frozen=True)
class Tagged(Tokenizer):
    """The words of a trained tagger (see genpipe.corpus.tagger); its weights travel along."""

    definition: "Definition"

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        return _tagger(self.definition).split_all(texts)


def tokenizer(name: str, *, normalise: Sequence[str] = (), file: Path | None = None) -> Tokenizer:
    """The tokenizer of that name, one of NAMES; `file` is the model, the lexicon or the folder of a tagger of those that have one."""
    if name not in NAMES:
        raise BadInput(f"no tokenizer {name!r}; there are: {', '.join(NAMES)}")
    if name in DEFINED:
        if file is None:
            raise BadInput(f"tokenizer {name}: needs the file that defines it; name a tokenizer file")
        return _from_file(name, tuple(normalise), file)
    if file is not None:
        raise BadInput(
            f"tokenizer {name}: takes no file, got {file}; drop it, or take one of: {', '.join(DEFINED)}"
        )
    return _built_in(name, tuple(normalise))


def inputs_of(root: Path, corpus: "Corpus") -> list[Path]:
    """What a corpus is made from: its data set, and the file that defines its tokenizer."""
    files = [root / corpus.file] if corpus.file else []
    return [root / "artifacts" / "datasets" / corpus.dataset, *files]


def corpus_tokenizer(root: Path, corpus: "Corpus") -> Tokenizer:
    """The tokenizer that a corpus of the project at `root` asks for."""
    file = root / corpus.file if corpus.file else None
    return tokenizer(corpus.tokenizer, normalise=corpus.normalise, file=file)


def definition_sha256(tokenizer: str, file: Path) -> str:
    """The SHA-256 of what defines a tokenizer: its file, or what is read of the folder of a tagger."""
    if tokenizer != TAGGED:
        return sha256(file)
    from genpipe.corpus.tagger import read_definition

    return read_definition(file).sha256


def _exploded(documents: Sequence[Sequence[str]]) -> pl.DataFrame:
    """The tokens of all documents in order: columns document (u32) and token."""
    import numpy as np  # not before it is needed: the start of a process that counts

    lengths = np.fromiter(map(len, documents), np.int64, len(documents))
    tokens = list(itertools.chain.from_iterable(documents))
    numbers = np.repeat(np.arange(len(documents), dtype=np.uint32), lengths)
    return pl.DataFrame({"document": numbers, "token": pl.Series(tokens, dtype=pl.String)})


def _grouped(exploded: pl.DataFrame, number: int) -> list[list[str]]:
    """The tokens of each of so many documents."""
    lists: list[list[str]] = [[] for _ in range(number)]
    for document, token in exploded.iter_rows():
        lists[document].append(token)
    return lists


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


@functools.lru_cache(1)
def _tagger(definition: "Definition") -> "Tagger":
    from genpipe.corpus.tagger import Tagger

    return Tagger(definition)


def _built_in(name: str, normalise: tuple[str, ...]) -> Tokenizer:
    if name in _CUTS:
        return Vectorised(name, _version(name, _needs("polars"), normalise), normalise)
    if name == "jieba_python":
        return SlowJieba(name, _version(name, f"{_needs('jieba')} {_UNICODE}", normalise), normalise)
    needs = f"{_needs('rjieba')} {_needs('jieba')} {_UNICODE}"  # the dictionary of one, the probabilities of the other
    return Jieba(name, _version(name, needs, normalise), normalise)


def _from_file(name: str, normalise: tuple[str, ...], file: Path) -> Tokenizer:
    if name == TAGGED:
        return _of_tagger(name, normalise, file)
    definition = _read(file)
    content = f"file {hashlib.sha256(definition.encode()).hexdigest()}"
    if name == "lexicon":
        _lexicon(definition, file)
        version = _version(name, f"{content} {_UNICODE}", normalise)
        return WithLexicon(name, version, normalise, definition, file)
    _check_model(name, definition, file)
    version = _version(name, f"{content} {_needs('tokenizers')}", normalise)
    return HuggingFace(name, version, normalise, definition)


def _of_tagger(name: str, normalise: tuple[str, ...], folder: Path) -> Tokenizer:
    from genpipe.corpus.tagger import read_definition

    definition = read_definition(folder)
    # its sums are exact, so no version of NumPy and no processor is part of it; white space is Python's
    content = f"folder {definition.sha256} {_UNICODE}"
    return Tagged(name, _version(name, content, normalise), normalise, definition)


def _needs(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def _version(name: str, needs: str, normalise: Sequence[str]) -> str:
    return f"{name} {needs} normalise {normalisation_version(normalise)}"


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file or directory; name a tokenizer file that exists") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not valid UTF-8 at byte {error.start}; convert the file first") from None


def _check_model(name: str, definition: str, file: Path) -> None:
    from genpipe.corpus.definitions import MODELS, check_definition  # loads tokenizers

    try:
        check_definition(json.loads(definition), name, str(file))
        _model(definition)
    except BadInput:
        raise
    except Exception as error:  # tokenizers raises no narrower one
        raise BadInput(
            f"{file}: not a valid Hugging Face tokenizer with a model of type {MODELS[name]}: "
            f"{type(error).__name__}: {' '.join(str(error).split())}; make one with: genpipe tokenizer train"
        ) from error


def _cut_words(text: pl.Expr) -> pl.Expr:
    return text.str.extract_all(r"\w+(?:['’]\w+)*")  # Rust's \w has the combining marks too


def _cut_at_space(text: pl.Expr) -> pl.Expr:
    # to split at single spaces takes half the time of matching \S+; \s is what Unicode calls white space
    return text.str.replace_all(r"[^\S ]\s*| \s+", " ").str.split(" ")


def _cut_characters(text: pl.Expr) -> pl.Expr:
    # newlines stay, so that lines can be separated again
    return text.str.replace_all(r"[^\S\n]+", "").str.split("")


_CUTS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "word": _cut_words,
    "whitespace": _cut_at_space,
    "char": _cut_characters,
}
_UNICODE = f"unicode {unicodedata.unidata_version}"
