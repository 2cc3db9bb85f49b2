"""Words by the principle of minimum entropy: what lowers the information for a character.

Source: Su Jianlin, archives/5476 and archives/5597 (2018). With units of frequencies p_i and lengths l_i the information for a character is L = H / l, with
H = −Σ p_i ln p_i and l = Σ p_i l_i. To join two neighbours a and b of frequency p_ab changes it by exactly −F_ab / l.
"""

import math
from collections.abc import Mapping

import numpy as np

from genpipe.discovery.grams import Grams
from genpipe.discovery.solidity import exp
from genpipe.discovery.units import UnitKind, split_units

Array = np.ndarray
LONG_PMI = 1.0  # nats for each unit but the first that a word must have more than its parts


def gain(p_a: float, p_b: float, p_ab: float) -> float:
    """F_ab in nats: l times what L loses when a and b are joined wherever they are neighbours; a and b differ, p_ab ≤ p_a, p_b.

    >>> round(gain(0.01, 0.02, 0.005), 6)
    0.013055
    """
    pair = p_ab * math.log(p_ab / (p_a * p_b)) - (1 - p_ab) * math.log1p(-p_ab)
    return pair + sum((p - p_ab) * math.log1p(-p_ab / p) for p in (p_a, p_b) if p > p_ab)


def gain_bound(p_a: float, p_b: float, p_ab: float) -> float:
    """F*_ab = p_ab (ln(p_ab / (p_a p_b)) − 1), never above `gain`: a pair is worth joining where its mutual information is above 1 nat."""
    return p_ab * (math.log(p_ab / (p_a * p_b)) - 1)


def strong_pairs(grams: Grams, min_proba: float, min_pmi: float) -> Array:
    """Of the n-grams of two units, which are frequent and bound: p_ab > min_proba and ln(p_ab / (p_a p_b)) > min_pmi, bool [n-grams].

    Frequencies of units are shares of all units, those of pairs shares of all pairs.
    """
    pairs, single = grams.orders[1], grams.orders[0].counts
    p_ab = pairs.counts / grams.pairs
    p_a, p_b = single[pairs.prefixes] / grams.total, single[pairs.units - 1] / grams.total
    return (p_ab > min_proba) & (p_ab > exp(min_pmi) * p_a * p_b)


def without_redundant(counts: Mapping[str, int], kind: UnitKind, *, per_unit: bool = True) -> dict[str, int]:
    """The words that are more than the sum of their parts; the counts of the others are added to their parts.

    From the longest word down, each is cut into the others that are left. It stays where ln p(word) − Σ ln p(part) is units − 1 or more (`per_unit`),
    or above 1. Single units stay.
    """
    kept = dict(counts)
    total = sum(counts.values())
    units = dict(zip(counts, split_units([*counts], kind), strict=True))
    for word in sorted(counts, key=lambda word: (-len(units[word]), word)):
        if len(units[word]) == 1:
            continue
        count = kept.pop(word)
        parts = _best(units[word], kept, total)
        information = math.log(count / total) - sum(math.log(kept.get(part, 1) / total) for part in parts)
        needed = LONG_PMI * (len(units[word]) - 1) if per_unit else LONG_PMI
        if information >= needed:
            kept[word] = count
            continue
        for part in parts:
            kept[part] = kept.get(part, 0) + count
    return kept


def _best(units: list[str], counts: Mapping[str, int], total: int) -> list[str]:
    """The most probable way to join units to words; of equal ones that with the longer first word. A unit that is no word counts once."""
    length = len(units)
    scores = [0.0] * (length + 1)
    ends = [0] * length
    for start in range(length - 1, -1, -1):
        scores[start] = -math.inf
        for end in range(start + 1, length + 1):
            count = counts.get("".join(units[start:end]), 1 if end == start + 1 else 0)
            if count and (score := math.log(count / total) + scores[end]) >= scores[start]:
                scores[start], ends[start] = score, end
    words: list[str] = []
    start = 0
    while start < length:
        words.append("".join(units[start : ends[start]]))
        start = ends[start]
    return words
