"""Measures of written texts beside right ones. A text is a sequence of units: characters, or token ids."""

import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from statistics import fmean

from sacrebleu.metrics.bleu import BLEU

Text = Sequence[Hashable]
MOST_GRAMS = 4  # of BLEU
IGNORED = ("P", "Z", "C")  # categories of Unicode: punctuation, spaces, controls


def longest_common_subsequence(a: Text, b: Text) -> int:
    """The length of the longest sequence that both have in its order, by a bit a unit of `a` (Hyyrö, 2004).

    >>> longest_common_subsequence("山中送別", "送別山人")
    2
    """
    places: dict[Hashable, int] = {}
    for place, unit in enumerate(a):
        places[unit] = places.get(unit, 0) | 1 << place
    everything = (1 << len(a)) - 1
    unmatched = everything
    for unit in b:
        found = unmatched & places.get(unit, 0)
        unmatched = (unmatched + found) | (unmatched - found)
    return len(a) - (unmatched & everything).bit_count()


def rouge_l(made: Text, real: Text) -> float:
    """ROUGE-L (Lin, 2004): the harmonic mean of LCS / length of the one and of the other, in [0, 1]; 0 where one is empty."""
    if not made or not real:
        return 0.0
    return 2 * longest_common_subsequence(made, real) / (len(made) + len(real))


def bleu_order(real: Sequence[Text]) -> int:
    """The most n of n-grams that half of the texts have, from 1 to 4.

    A text shorter than n has no n-gram: by 4-grams a corpus of shorter lines scores 0 even beside itself.
    """
    middle = sorted(map(len, real), reverse=True)[(len(real) - 1) // 2]
    return max(1, min(MOST_GRAMS, middle))


def bleu(made: Sequence[Text], real: Sequence[Text], order: int) -> float:
    """BLEU of a corpus (Papineni et al., 2002) by sacrebleu, units as tokens, up to n-grams of `order`, in [0, 1]."""
    scorer = BLEU(tokenize="none", max_ngram_order=order, force=True)
    lines, references = ([" ".join(map(str, text)) for text in texts] for texts in (made, real))
    return scorer.corpus_score(lines, [references]).score / 100


def distinct(texts: Iterable[Text], n: int) -> float:
    """Different n-grams over all n-grams of some texts (Li et al., 2016, arXiv:1510.03055); 0 where there are none."""
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def normalised(text: str) -> str:
    """A text without punctuation and spaces, in lower case, full width as half width.

    >>> normalised("《Ｔａｎｇ 詩》。")
    'tang詩'
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in plain if unicodedata.category(c)[0] not in IGNORED)


def matches(made: Text, right: Sequence[Text]) -> bool:
    """Whether a text is one of the right ones."""
    return any(tuple(made) == tuple(text) for text in right)


def f1(made: Text, right: Sequence[Text]) -> float:
    """The best F1 of units, each counted as often as it occurs, beside one of the right texts; 0 for an empty one."""
    return max((_f1(made, text) for text in right), default=0.0)


def _f1(made: Text, real: Text) -> float:
    shared = (Counter(made) & Counter(real)).total()
    return 2 * shared / (len(made) + len(real)) if shared else 0.0


def answers(made: Sequence[Text], right: Sequence[Sequence[Text]]) -> dict[str, float]:
    """`exact_match`, `f1` and `final`, the mean of both, as CIPS-SOGOU's reading comprehension has them (archives/7115)."""
    exact = fmean(matches(text, texts) for text, texts in zip(made, right, strict=True))
    overlap = fmean(f1(text, texts) for text, texts in zip(made, right, strict=True))
    return {"exact_match": exact, "f1": overlap, "final": (exact + overlap) / 2}
