"""Text to token ids and back, by what an encoded directory or a trained model holds; no data set is needed."""

import functools
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from genpipe.corpus.tokenizers import Tokenizer, tokenizer
from genpipe.errors import BadInput, BadState
from genpipe.files import existing, read_json, write_json
from genpipe.params.corpora import Corpus

UNKNOWN = 0  # id of <unk>
SHOWN = "□"  # an unknown token in decoded text
SPECIAL = ("pad", "start", "end", "sep", "mask")  # their ids follow the vocabulary, in this order
LEXICON, MODEL = "lexicon.tsv", "tokenizer.json"  # copies of the file that defines a tokenizer


@dataclass(frozen=True)
class Codec:
    """A tokenizer and a vocabulary; special ids are attributes."""

    tokenizer: Tokenizer
    vocabulary: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path) -> "Codec":
        """The codec of a directory with codec.json."""
        remedy = "make it again with genpipe encode, or train the model again"
        path, words_path = directory / "codec.json", directory / "vocabulary.json"
        about = read_json(existing(path, remedy))
        if not isinstance(about, dict) or not {"tokenizer", "normalise", "tokenizer_file"} <= set(about):
            raise BadInput(f"{path}: tokenizer, normalise or tokenizer_file are missing; {remedy}")
        words = read_vocabulary(words_path, remedy)
        name = about["tokenizer_file"]
        file = existing(directory / name, remedy) if name else None
        found = tokenizer(about["tokenizer"], normalise=about["normalise"], file=file)
        return cls(found, tuple(words))

    @property
    def pad(self) -> int:
        """Id of <pad>."""
        return len(self.vocabulary)

    @property
    def start(self) -> int:
        """Id of <s>."""
        return len(self.vocabulary) + 1

    @property
    def end(self) -> int:
        """Id of </s>."""
        return len(self.vocabulary) + 2

    @property
    def sep(self) -> int:
        """Id of <sep>."""
        return len(self.vocabulary) + 3

    @property
    def mask(self) -> int:
        """Id of <mask>."""
        return len(self.vocabulary) + 4

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.vocabulary)}

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises BadInput where none of its tokens is known."""
        ids = [self._numbers.get(token, UNKNOWN) for token in self.tokenizer.split(text)]
        if not any(ids):
            raise BadInput(
                f"{text[:40]!r}: no token of it is in the vocabulary; give text like that of the corpus"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; an unknown token is □, <sep> a line break, the other special ids are left out."""
        tokens = [token for number in ids if (token := self._shown(int(number))) is not None]
        return self.tokenizer.join(tokens)

    def _shown(self, number: int) -> str | None:
        if number == UNKNOWN:
            return SHOWN
        if number < len(self.vocabulary):
            return self.vocabulary[number]
        return "\n" if number == self.sep else None


def read_vocabulary(path: Path, remedy: str) -> list[str]:
    """The tokens of a vocabulary.json, each at the place that is its id."""
    words = read_json(existing(path, remedy))
    is_list = isinstance(words, list) and words and all(isinstance(word, str) for word in words)
    if not is_list or len(set(words)) < len(words):
        raise BadState(f"{path}: not a list of tokens, each of them once; {remedy}")
    return words


def special_facts(size: int) -> dict[str, int]:
    """The number of ids of a vocabulary of this size, and the special ones."""
    ids = {name: size + place for place, name in enumerate(SPECIAL)}
    return {"num_tokens": size + len(SPECIAL)} | ids


def write_codec(directory: Path, root: Path, corpus: Corpus, vocabulary: Path) -> None:
    """Write codec.json, vocabulary.json and a copy of the file that defines the tokenizer."""
    shutil.copyfile(vocabulary, directory / "vocabulary.json")
    name = None
    if corpus.tokenizer_file:
        name = LEXICON if corpus.tokenizer == "lexicon" else MODEL
        shutil.copyfile(root / corpus.tokenizer_file, directory / name)
    about = {"tokenizer": corpus.tokenizer, "normalise": list(corpus.normalise), "tokenizer_file": name}
    write_json(directory / "codec.json", about)
