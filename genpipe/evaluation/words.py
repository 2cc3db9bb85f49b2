"""How well the words of texts are found: F1 of spans, as in the bakeoffs of Chinese word segmentation (Sproat, Emerson, 2003)."""

from collections.abc import Iterable, Sequence

from genpipe.corpus.word_tags import spans


def score_words(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, float]:
    """Precision, recall and F1 of the words of all texts together, of pairs of found and right tags.

    Beside them stands a word for each character.
    """
    made = real = right = single = tokens = 0
    for found, gold in pairs:
        own, wanted = set(spans(found)), set(spans(gold))
        made, real, right = made + len(own), real + len(wanted), right + len(own & wanted)
        single += sum(end - start == 1 for start, end in wanted)
        tokens += len(gold)
    return {
        "word_f1": 2 * right / (made + real),
        "word_precision": right / made,
        "word_recall": right / real,
        "word_f1_singles": 2 * single / (tokens + real),
    }
