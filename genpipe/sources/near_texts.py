"""Near copies of texts: the same but for a few words.

A text is the set of its pairs of neighbouring words, and a Chinese character is a word; two texts are near copies where the sets have
NEAR of their union in common. All pairs are found, and no others: a text need only be compared with those that share one of its rarest
pairs (Bayardo, Ma and Srikant, Scaling Up All Pairs Similarity Search, WWW 2007).
"""

import itertools
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

from genpipe.sources.verse import HAN

# Read: of verses of the Bible, pairs from here on are the same sentence with another name or particle; at 0.5 other verses come in.
NEAR = 0.7
ROUNDING = 1e-9  # so that 0.7 · 10 is 7, also where it is a little more
WORD = re.compile(rf"[{HAN}]|[^\W{HAN}_]+")
Pairs = frozenset[tuple[str, str]]


def words_of(text: str) -> list[str]:
    """The words of a text without case, width and punctuation; each Chinese character is one."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def pairs_of(text: str) -> Pairs:
    """Neighbouring words, the first and the last one with the edge of the text: of n words n + 1."""
    words = ["", *words_of(text), ""]
    return frozenset(itertools.pairwise(words))


def near_copies(texts: Sequence[Pairs]) -> Iterator[tuple[int, int]]:
    """The numbers i < j of texts with |a ∩ b| ≥ NEAR · |a ∪ b|."""
    counts = Counter(pair for text in texts for pair in text)
    ordered = [sorted(text, key=lambda pair: (counts[pair], pair)) for text in texts]
    holders: dict[Hashable, list[int]] = defaultdict(list)
    for number in sorted(range(len(texts)), key=lambda i: len(texts[i])):
        own, size = texts[number], len(texts[number])
        # A near copy that is no longer has at least this many pairs, and as many in common: it shares one of the first ones.
        least = math.ceil(NEAR * size - ROUNDING)
        rare = ordered[number][: size - least + 1]
        seen = {other for pair in rare for other in holders[pair] if len(texts[other]) >= least}
        for other in seen:
            common = len(own & texts[other])
            if common >= NEAR * (size + len(texts[other]) - common):
                yield min(number, other), max(number, other)
        # One that is no shorter has more in common, so fewer of these pairs can be the first that both have.
        for pair in rare[: size - math.ceil(2 * NEAR / (1 + NEAR) * size - ROUNDING) + 1]:
            holders[pair].append(number)
