"""Near copies among texts of few lengths, as lines of verse: all but some characters are the same in the same places."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

Pair = tuple[int, int]


def near_lines(texts: Sequence[str], most: int) -> Iterator[Pair]:
    """The numbers i < j of texts of one length that differ in 1 to `most` places: each pair once, and no others.

    A text is cut into `most` + 1 pieces; two that differ in `most` places have a piece in common (Baeza-Yates and Perleberg, Fast and
    practical approximate string matching, 1996).
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        by_length[len(text)].append(number)
    for _, numbers in sorted(by_length.items()):
        yield from sorted(_of_one_length([texts[number] for number in numbers], numbers, most))


def _of_one_length(texts: Sequence[str], numbers: Sequence[int], most: int) -> set[Pair]:
    found: set[Pair] = set()
    edges = [len(texts[0]) * piece // (most + 1) for piece in range(most + 2)]
    points = np.array([[ord(character) for character in text] for text in texts], np.int32)
    for start, stop in itertools.pairwise(edges):
        holders: dict[str, list[int]] = defaultdict(list)
        for place, text in enumerate(texts):
            holders[text[start:stop]].append(place)
        for places in holders.values():
            found |= {(numbers[i], numbers[j]) for i, j in _within(points, np.array(places), most)}
    return found


def _within(points: np.ndarray, places: np.ndarray, most: int) -> Iterator[Pair]:
    """The places i < j, of `places`, whose rows of `points` differ in 1 to `most` columns."""
    for number, place in enumerate(places[:-1]):
        others = places[number + 1 :]
        differing = (points[others] != points[place]).sum(1)
        near = others[(differing > 0) & (differing <= most)]
        yield from ((int(place), int(other)) for other in near)
