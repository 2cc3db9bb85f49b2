"""How well the words of texts are found: F1 of spans, as in the bakeoffs of Chinese word segmentation (Sproat, Emerson, 2003)."""

from collections.abc import Iterable, Sequence

OF_WORDS = ("B", "E", "M", "S")  # tags of characters: beginning, end, middle, single


def score_words(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, float]:
    """Precision, recall and F1 of the words of all texts together, of pairs of found and right tags.

    Beside them stands a word for each character.
    """
    made = real = right = single = tokens = 0
    for found, gold in pairs:
        own, wanted = spans(found), spans(gold)
        made, real, right = made + len(own), real + len(wanted), right + len(own & wanted)
        single += sum(end - start == 1 for start, end in wanted)
        tokens += len(gold)
    return {
        "word_f1": 2 * right / (made + real),
        "word_precision": right / made,
        "word_recall": right / real,
        "word_f1_singles": 2 * single / (tokens + real),
    }


def spans(tags: Sequence[str]) -> set[tuple[int, int]]:
    """Words as (start, end): one begins at B and S, and behind E and S; so any tags cut a text."""
    starts = [i for i, tag in enumerate(tags) if i == 0 or tag in "BS" or tags[i - 1] in "ES"]
    return set(zip(starts, [*starts[1:], len(tags)], strict=True))
