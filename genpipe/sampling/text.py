"""Token ids as text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from genpipe.files import read_json
from genpipe.sampling.decoding import Marks

UNKNOWN = 0  # id of <unk>


class Speller:
    """The text of token ids; an unknown token is shown as □, and the special ids after the vocabulary as nothing."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = ["□", *vocabulary[1:]]
        self.separator = "" if all(len(token) == 1 for token in vocabulary[1:]) else " "

    def line(self, ids: Sequence[int]) -> str:
        """One text."""
        return self.separator.join(self.vocabulary[i] for i in ids if i < len(self.vocabulary))

    def lines(self, ids: Tensor) -> list[str]:
        """The texts of rows, [n, time]."""
        return [self.line(row) for row in ids.tolist()]


def speller_in(directory: Path) -> Speller | None:
    """The speller of a data directory, or None where it has no vocabulary."""
    path = directory / "vocabulary.json"
    return Speller(read_json(path)) if path.exists() else None


def marks_of(facts: dict[str, Any]) -> Marks:
    """The special ids of data of token ids."""
    return Marks(facts["start"], facts["end"], facts["pad"])
