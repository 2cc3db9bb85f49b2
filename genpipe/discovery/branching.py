"""Branching entropy: how uncertain the neighbours of an n-gram are. Inside a word they are certain, at its ends they are not.

Sources: Zellig Harris, *From Phoneme to Morpheme* (1955); Pierre Magistry and Benoît Sagot, *Unsupervized Word Segmentation: the Case for Mandarin Chinese*
(2012), from which the autonomy is: the variation of the entropy by the last unit of an n-gram, standardised over all n-grams of its length, and added up
over both directions.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from genpipe.discovery.grams import Grams

Array = np.ndarray


class Branching(NamedTuple):
    """Of the n-grams of an order: entropies of the unit before and behind, in nats, and the autonomy, float64 [n-grams]."""

    left: Array
    right: Array
    autonomy: Array


def branching(grams: Grams) -> list[Branching]:
    """For each order but the highest. What is counted too rarely to be in the table, and a break, is each time another neighbour.

    All sums are made in one order or exactly, and logarithms are those of whole numbers, rounded once: the same bits on all processors.
    """
    suffixes = grams.suffixes()
    logs = _Logarithms([order.counts for order in grams.orders], grams.total)
    total = max(grams.total, 1)
    nothing = logs.of(np.array([total]))[0] - _sum(logs.times(grams.orders[0].counts)) / total
    before = (np.full(1, nothing), np.full(1, nothing))
    found: list[Branching] = []
    for order in range(len(grams.orders) - 1):
        table, longer = grams.orders[order], grams.orders[order + 1]
        right = _entropies(longer.prefixes, longer.counts, table.counts, logs)
        left = _entropies(suffixes[order + 1], longer.counts, table.counts, logs)
        # single units have an empty n-gram before them
        without_last, without_first = (table.prefixes, suffixes[order]) if order else (0, 0)
        autonomy = _standard(left - before[0][without_first]) + _standard(right - before[1][without_last])
        found.append(Branching(left, right, autonomy))
        before = (left, right)
    return found


class _Logarithms:
    """Natural logarithms of whole numbers."""

    def __init__(self, counts: Sequence[Array], total: int) -> None:
        self._numbers = np.unique(np.concatenate([*counts, [1, max(total, 1)]]))
        self._values = np.array([float(Decimal(int(number)).ln()) for number in self._numbers])

    def of(self, counts: Array) -> Array:
        return self._values[np.searchsorted(self._numbers, counts)]

    def times(self, counts: Array) -> Array:
        """n · ln n."""
        return counts * self.of(counts)


def _entropies(owners: Array, counts: Array, totals: Array, logs: _Logarithms) -> Array:
    """ln N − Σ n ln n / N over the neighbours of each owner; those that are missing are there once each, and 1 · ln 1 is 0."""
    return logs.of(totals) - np.bincount(owners, logs.times(counts), len(totals)) / totals


def _standard(values: Array) -> Array:
    if not len(values):
        return values
    mean = _sum(values) / len(values)
    deviation = math.sqrt(_sum((values - mean) ** 2) / len(values))
    return (values - mean) / (deviation or 1.0)


def _sum(values: Array) -> float:
    return math.fsum(values.tolist())
