"""Token ids as text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from genpipe.codec_files import read_about, read_vocabulary
from genpipe.sampling.marks import Marks

UNKNOWN = 0  # id of <unk>


class Speller:
    """The text of token ids; an unknown token is shown as □, and the special ids after the vocabulary as nothing."""

    def __init__(self, vocabulary: Sequence[str], is_spaced: bool) -> None:
        self.vocabulary = ["□", *vocabulary[1:]]
        self.separator = " " if is_spaced else ""

    def line(self, ids: Sequence[int]) -> str:
        """One text."""
        return self.separator.join(self.vocabulary[i] for i in ids if i < len(self.vocabulary))

    def lines(self, ids: Tensor) -> list[str]:
        """The texts of rows, [n, time]."""
        return [self.line(row) for row in ids.tolist()]


def speller_in(directory: Path) -> Speller | None:
    """The speller of a data directory, or None where it has no vocabulary."""
    if not (directory / "vocabulary.json").exists():
        return None
    remedy = "make the directory again, or fetch it again"
    is_spaced = not (directory / "codec.json").exists() or read_about(directory, remedy).tokenizer != "char"
    return Speller(read_vocabulary(directory, remedy), is_spaced)


def marks_of(facts: Mapping[str, Any], kind: str) -> Marks:
    """The special ids of data of token ids.

    A window of a stream begins anywhere in a document, so only after an end mark does a text begin.
    """
    opening = (facts["start"], facts["end"]) if kind == "stream" else (facts["start"],)
    return Marks(opening, facts["end"], facts["pad"])
