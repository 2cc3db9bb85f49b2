"""Text cut into words of a lexicon that score above their share where both of their ends are free."""

import functools
import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genpipe.corpus.lexicon import Lexicon
from genpipe.corpus.normalisation import normalisation_version
from genpipe.corpus.tokenizers import Tokenizer
from genpipe.dependencies import version_of
from genpipe.discovery.units import UnitKind


@dataclass(frozen=True)
class FreeWords(Tokenizer):
    """The words with the highest sum of ln(share) + added nats; `definition`: JSON of word -> [count, nats]."""

    definition: str
    units: UnitKind

    def _split_all(self, texts: Sequence[str]) -> list[list[str]]:
        lexicon = _lexicon(self.definition, self.units)
        return [lexicon.split(text) for text in texts]


def free_words(
    counts: Mapping[str, int], added: Mapping[str, float], units: UnitKind, normalise: tuple[str, ...]
) -> FreeWords:
    """The tokenizer of counted words, each of which scores `added` nats more."""
    definition = json.dumps(
        {word: (count, added[word]) for word, count in counts.items()}, ensure_ascii=False
    )
    digest = hashlib.sha256(definition.encode()).hexdigest()
    version = f"free words {digest} {units} unicode {unicodedata.unidata_version} normalise {normalisation_version(normalise)} {_code_version()}"
    return FreeWords("lexicon", version, normalise, definition, units)


@functools.lru_cache(1)
def _lexicon(definition: str, units: UnitKind) -> Lexicon:
    found = json.loads(definition)
    return Lexicon(
        {word: count for word, (count, _) in found.items()},
        {word: nats for word, (_, nats) in found.items()},
        units,
    )


@functools.cache
def _code_version() -> str:
    return version_of("discovery.free_words")
