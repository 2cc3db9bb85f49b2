"""Text to token ids and back, by what an encoded directory or a trained model holds; no data set is needed."""

import functools
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from genpipe.codec_files import copy_of, read_about, read_vocabulary
from genpipe.corpus.tokenizers import Tokenizer, tokenizer
from genpipe.errors import BadInput
from genpipe.files import write_json
from genpipe.params.corpora import Corpus

UNKNOWN = 0  # id of <unk>
SHOWN = "□"  # an unknown token in decoded text


@dataclass(frozen=True)
class Codec:
    """A tokenizer and a vocabulary; special ids are attributes."""

    tokenizer: Tokenizer
    vocabulary: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path) -> "Codec":
        """The codec of a directory with codec.json."""
        remedy = "make it again with genpipe encode, or train the model again"
        about, words = read_about(directory, remedy), read_vocabulary(directory, remedy)
        return cls(tokenizer(about.tokenizer, normalise=about.normalise, file=about.file), words)

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


def write_codec(directory: Path, root: Path, corpus: Corpus, vocabulary: Path) -> None:
    """Write codec.json, vocabulary.json and a copy of the file that defines the tokenizer."""
    shutil.copyfile(vocabulary, directory / "vocabulary.json")
    name = copy_of(corpus.tokenizer)
    if name and corpus.file:
        shutil.copyfile(root / corpus.file, directory / name)
    about = {"tokenizer": corpus.tokenizer, "normalise": list(corpus.normalise), "tokenizer_file": name}
    write_json(directory / "codec.json", about)
