"""Solid n-grams: those that occur far more often than their parts would by chance.

Source: Su Jianlin, archives/4256 (2017) and archives/6920 (2019). Of an n-gram s with N(s) occurrences in a text of `total` units, the solidity is the
smallest of total · N(s) / (N(left) · N(right)) over all ways to cut it in two. For two units that is the exponential of their pointwise mutual
information.
"""

from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from genpipe.discovery.grams import Grams

Array = np.ndarray
THRESHOLDS: Mapping[int, float] = {2: 2.0, 3: 4.0, 4: 6.0, 5: 8.0, 6: 10.0}  # nats, by order


def solidities(grams: Grams) -> list[Array]:
    """The solidity of each n-gram, float64, a ratio, for each order; of single units it is infinite.

    A division and products of whole numbers below 2⁵³ are rounded alike on all processors.
    """
    counts = [order.counts.astype(np.float64) for order in grams.orders]
    suffixes = grams.suffixes()
    found = [np.full(len(counts[0]), np.inf)]
    # of each n-gram of this order the index of its first units and of its last units, by their number
    beginnings: list[list[Array]] = [[np.arange(len(counts[0]))]]
    endings: list[list[Array]] = [[np.arange(len(counts[0]))]]
    for order in range(1, len(counts)):
        table = grams.orders[order]
        rows = np.arange(len(table.keys))
        begin = [part[table.prefixes] for part in beginnings[-1]] + [rows]
        end = [part[suffixes[order]] for part in endings[-1]] + [rows]
        expected = np.stack(
            [counts[cut][begin[cut]] * counts[order - 1 - cut][end[order - 1 - cut]] for cut in range(order)]
        )
        found.append(grams.total * counts[order] / expected.max(0) if len(rows) else np.zeros(0))
        beginnings.append(begin)
        endings.append(end)
    return found


def solid(grams: Grams, thresholds: Mapping[int, float] = THRESHOLDS) -> list[Array]:
    """For each order, which n-grams have a solidity of e^threshold or more, bool [n-grams]; no single unit, no order without a threshold."""
    return [
        ratios >= exp(thresholds[order]) if order in thresholds else np.zeros(len(ratios), bool)
        for order, ratios in enumerate(solidities(grams), start=1)
    ]


def exp(nats: float) -> float:
    """e^nats, rounded once: the same bits on all processors."""
    return float(Decimal(repr(nats)).exp())
