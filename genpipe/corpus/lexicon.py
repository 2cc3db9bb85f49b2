"""A lexicon: words with counts, and the most probable way to cut a text into them (a unigram model, Viterbi).

A word scores ln(count / total). A text is a row of units: a run of ASCII letters and digits, or any other character.
A word covers one or more whole units; a unit that is no word scores as if it had been counted once. The split with
the highest sum is taken; of equal ones that with the longer first word, and so on. White space ends a word and is
dropped.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from genpipe.errors import BadInput

UNITS = {"runs": re.compile(r"[A-Za-z0-9]+|\S"), "characters": re.compile(r"\S")}


class Lexicon:
    """Words and their counts."""

    def __init__(
        self,
        counts: Mapping[str, int],
        added: Mapping[str, float] = MappingProxyType({}),
        units: Literal["runs", "characters"] = "runs",
    ) -> None:
        """`added`: nats that words score above their share; `units`: with characters a run of letters and digits is no unit."""
        self._unit = UNITS[units]
        logarithm = math.log(sum(counts.values()))
        self._unknown = -logarithm
        # a beginning of a word that is no word itself is here too, as None: where none goes on, the search stops
        self._scores: dict[str, float | None] = {
            word[:end]: None for word in counts for end in range(1, len(word))
        }
        self._scores.update(
            (word, math.log(count) - logarithm + added.get(word, 0.0)) for word, count in counts.items()
        )

    def split(self, text: str) -> list[str]:
        """The most probable tokens of a text."""
        return [token for part in text.split() for token in self.best(self._unit.findall(part))]

    def best(self, units: Sequence[str]) -> list[str]:
        """The most probable way to join `units` to words."""
        length = len(units)
        total = [0.0] * (length + 1)  # of the best split from here to the end
        following = [0] * length
        for start in range(length - 1, -1, -1):
            total[start] = -math.inf
            for end, score in self._words(units, start):
                if score + total[end] >= total[start]:
                    total[start], following[start] = score + total[end], end
        return list(_joined(units, following))

    def scores(self) -> dict[str, float]:
        """The logarithm of each word's share."""
        return {word: score for word, score in self._scores.items() if score is not None}

    def _words(self, units: Sequence[str], start: int) -> Iterator[tuple[int, float]]:
        """The ends and the scores of the words that begin at `start`, the shortest first."""
        part = units[start]
        score = self._scores.get(part)
        yield start + 1, self._unknown if score is None else score
        for end in range(start + 2, len(units) + 1):
            if part not in self._scores:
                return
            part += units[end - 1]
            score = self._scores.get(part)
            if score is not None:
                yield end, score


def read_lexicon(text: str, name: Path) -> Lexicon:
    """The lexicon in the text of a file: a line a word, word<TAB>count; `name` is for the complaints."""
    counts: dict[str, int] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        word, _, count = line.removesuffix("\r").partition("\t")
        if not re.fullmatch(r"0*[1-9][0-9]{0,17}", count) or word.split() != [word]:
            raise BadInput(
                f"{name}: line {number}: must be word<TAB>count, a word without white space and a whole number "
                f"from 1 up, not {line[:40]!r}; fix the line"
            )
        if word in counts:
            raise BadInput(f"{name}: line {number}: {word!r} was there before; add its counts up on one line")
        counts[word] = int(count)
    return Lexicon(counts)


def _joined(units: Sequence[str], following: Sequence[int]) -> Iterator[str]:
    start = 0
    while start < len(units):
        yield "".join(units[start : following[start]])
        start = following[start]
