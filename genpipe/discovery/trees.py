"""Trees of sentences: nested templates, of which the most probable ones are found exactly.

Source: Su Jianlin, 最小熵原理（三）：“飞象过河”之句模版和语言结构, archives/5577, 2018. With the counts f of templates,

    score(span) = max over templates that match the whole span of ln f(template) - ln(sum of all f) + sum of score(hole),

a hole being the words that a placeholder stands for, one or more. A span that no template matches is a flat list of its
words, null_score x (length - 1).

Of equal scores the tree is taken whose topmost template has fewer words; of these the one whose parts (words and holes) are
longer from the left: the first part that differs decides; then the template that comes first, part by part, a placeholder
before a word and words by code point. Inside of each hole the same holds. Scores are added up as whole numbers of 1e-9 nats, and the
logarithm of a count as those of its prime factors: so equal products of counts are equal sums, in whatever order they are added.

Templates are a tree of prefixes without the placeholders at their ends. Spans are filled from the right end of the
sentence and from short to long; a template with a placeholder at its left end is joined to the span before it, so the
work is cubic in the length where templates repeat few words of the sentence.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from genpipe.discovery.notation import Part, parts_of, text_of
from genpipe.errors import BadInput

LONGEST = 250  # words of a sentence
UNITS = 10**9  # in a nat
NOTHING = 1 << 60  # more than any cost: two of them fit into 64 bits
MOST_FACTOR = 10**6  # so counts up to its square are factored
MOST_NULL = 1e5  # so does what 250 words cost


@dataclass(frozen=True)
class Tree:
    """A span of a sentence: the template that matches it, or None for a flat list, and a child for each part."""

    template: tuple[Part, ...] | None
    children: tuple["Tree | str", ...]  # a word, or the tree of a hole
    score: float  # nats

    @property
    def name(self) -> str:
        """The template as a text; empty for a flat list."""
        return "" if self.template is None else text_of(self.template)

    def words(self) -> list[str]:
        """The words of the span in order."""
        return [
            word for child in self.children for word in ([child] if isinstance(child, str) else child.words())
        ]


class _Key(NamedTuple):
    """How good a way to match is: the smallest one is the best."""

    cost: int  # minus the score, in UNITS
    words: int  # of the template
    ends: tuple[int, ...]  # minus the end of each part
    parts: tuple[str, ...]  # "" for a placeholder


class _End(NamedTuple):
    """A template that ends at a node."""

    cost: int
    words: int
    parts: tuple[str, ...]


@dataclass(eq=False)
class _Node:
    """A beginning of templates, without the placeholder before their first word."""

    words: dict[str, "_Node"] = field(default_factory=dict)
    hole: "_Node | None" = None
    ends: dict[tuple[bool, bool], _End] = field(default_factory=dict)  # by placeholders before and behind


Reached = dict[_Node, tuple[int, tuple[int, ...]]]  # cost and ends of the best way to a node
Row = list[_Key | None]  # by where a span ends


class Parser:
    """Finds the trees of sentences by templates with counts."""

    def __init__(
        self, counts: Mapping[str, int], *, total: int | None = None, null_score: float = -20.0
    ) -> None:
        """`counts`: by template, written as in genpipe.discovery.notation; `total`: the sum of all, if more than these."""
        if not -MOST_NULL <= null_score <= 0:
            raise BadInput(f"null_score: must be between {-MOST_NULL:,.0f} and 0, not {null_score}")
        self._null = round(-null_score * UNITS)
        logarithm = _logarithm(total or sum(counts.values()) or 1)
        self._root = _Node()
        for text, count in counts.items():
            self._add(parts_of(text), logarithm - _logarithm(count))

    def parse(self, words: Sequence[str]) -> Tree:
        """The best tree of a sentence; BadInput where it has no word, or too many."""
        if not 1 <= len(words) <= LONGEST:
            raise BadInput(
                f"{''.join(words)[:20]!r}: {len(words)} words, and a sentence of 1 to {LONGEST} can be parsed; "
                "give sentences one by one"
            )
        return _Table(words, self._root, self._null).tree(0, len(words))

    def _add(self, parts: tuple[Part, ...], cost: int) -> None:
        before, behind = parts[0] is None, parts[-1] is None
        node = self._root
        for part in parts[before : len(parts) - behind]:
            if part is None:
                node.hole = node.hole or _Node()
                node = node.hole
            else:
                node = node.words.setdefault(part, _Node())
        words = sum(part is not None for part in parts)
        node.ends[before, behind] = _End(cost, words, tuple(part or "" for part in parts))


class _Table:
    """The best way to match each span of a sentence."""

    def __init__(self, words: Sequence[str], root: _Node, null: int) -> None:
        self._words = words
        self._root = root
        length = len(words)
        self._best = [[0] * (length + 1) for _ in range(length)]  # cost of a span, by its two ends
        self._chosen: list[Row] = [[None] * (length + 1) for _ in range(length)]  # None: a flat list
        self._places: dict[_Node, list[int]] = {}
        rows: list[Row] = [[] for _ in range(length)]  # of what follows a placeholder, by where it begins
        costs = np.full((length + 1, length), NOTHING)  # of the same, by where it ends and where it begins
        for start in range(length - 1, -1, -1):
            whole, rows[start] = self._from(start)
            costs[:, start] = [NOTHING if key is None else key.cost for key in rows[start]]
            spans = np.full(length, NOTHING)  # costs of the spans that begin here
            for end in range(start + 1, length + 1):
                key = _after_hole(start, end, rows, costs[end, start + 1 : end] + spans[start + 1 : end])
                key = min((known for known in (key, whole[end]) if known is not None), default=None)
                self._chosen[start][end] = key
                cost = null * (end - start - 1) if key is None else key.cost
                self._best[start][end] = cost
                if end < length:
                    spans[end] = cost

    def tree(self, start: int, end: int) -> Tree:
        """The tree of a span."""
        score = -self._best[start][end] / UNITS
        key = self._chosen[start][end]
        if key is None:
            return Tree(None, tuple(self._words[start:end]), score)
        template = tuple(part or None for part in key.parts)
        bounds = itertools.pairwise([start, *(-place for place in key.ends)])
        children = tuple(
            self.tree(first, last) if part is None else part
            for part, (first, last) in zip(template, bounds, strict=True)
        )
        return Tree(template, children, score)

    def _from(self, start: int) -> tuple[Row, Row]:
        """The best templates whose first word is at `start`: those that begin with it, and those with a placeholder before."""
        length = len(self._words)
        rows: tuple[Row, Row] = [None] * (length + 1), [None] * (length + 1)
        for place, cost, ends, (before, behind), end in self._matches(start):
            row = rows[before]
            ends = (-start, *ends) if before else ends
            if not behind:
                _keep(row, place, _Key(cost + end.cost, end.words, ends, end.parts))
                continue
            rest = self._best[place] if place < length else []
            for last in range(place + 1, length + 1):
                _keep(row, last, _Key(cost + end.cost + rest[last], end.words, (*ends, -last), end.parts))
        return rows

    def _matches(self, start: int) -> Iterator[tuple[int, int, tuple[int, ...], tuple[bool, bool], _End]]:
        """Where a match from `start` ends, the cost of its holes, its ends, where placeholders are, and its template."""
        length = len(self._words)
        first = self._root.words.get(self._words[start])
        if first is None:
            return
        reached: list[Reached] = [{} for _ in range(length + 1)]
        reached[start + 1][first] = (0, (-start - 1,))
        for place in range(start + 1, length + 1):
            for node, (cost, ends) in reached[place].items():
                for sides, end in node.ends.items():
                    yield place, cost, ends, sides, end
                if place < length and (following := node.words.get(self._words[place])):
                    _reach(reached[place + 1], following, cost, (*ends, -place - 1))
                if node.hole is None or place == length:
                    continue
                for later in self._places_after(node.hole, place):
                    following = node.hole.words[self._words[later]]
                    total = cost + self._best[place][later]
                    _reach(reached[later + 1], following, total, (*ends, -later, -later - 1))

    def _places_after(self, node: _Node, place: int) -> list[int]:
        """Where, behind a place, there is a word that a node goes on with."""
        if node not in self._places:
            self._places[node] = [i for i, word in enumerate(self._words) if word in node.words]
        return [i for i in self._places[node] if i > place]


@functools.cache
def _logarithm(number: int) -> int:
    """The natural logarithm in UNITS, as the sum of those of the prime factors; factors above MOST_FACTOR stay together."""
    total, factor = 0, 2
    while factor * factor <= number and factor <= MOST_FACTOR:
        while number % factor == 0:
            number //= factor
            total += round(math.log(factor) * UNITS)
        factor += 1
    return total + round(math.log(number) * UNITS)


def _after_hole(start: int, end: int, rows: Sequence[Row], sums: np.ndarray) -> _Key | None:
    """The best of the templates with a placeholder first, by the cost of each place where that may end."""
    if not len(sums) or (cost := int(sums.min())) >= NOTHING:
        return None
    keys = [rows[start + 1 + place][end] for place in np.flatnonzero(sums == cost).tolist()]
    return min((key for key in keys if key is not None), key=lambda key: key[1:])._replace(cost=cost)


def _keep(row: Row, place: int, key: _Key) -> None:
    known = row[place]
    if known is None or key < known:
        row[place] = key


def _reach(reached: Reached, node: _Node, cost: int, ends: tuple[int, ...]) -> None:
    known = reached.get(node)
    if known is None or (cost, ends) < known:
        reached[node] = (cost, ends)
