"""Words of texts from tags of their characters: B begins a word, M is inside, E ends it, S is a word by itself."""

from collections.abc import Collection, Sequence

OF_WORDS = ("B", "E", "M", "S")


def are_of_words(classes: Collection[str]) -> bool:
    """Whether tags with these names mark words."""
    return tuple(sorted(classes)) == OF_WORDS


def spans(tags: Sequence[str]) -> list[tuple[int, int]]:
    """Words as (start, end): one begins at B and S, and behind E and S; so any tags cut a text."""
    starts = [i for i, tag in enumerate(tags) if i == 0 or tag in "BS" or tags[i - 1] in "ES"]
    return [*zip(starts, [*starts[1:], len(tags)], strict=True)]


def spaced(tokens: Sequence[str], tags: Sequence[str]) -> str:
    """The words of a text with spaces between them; each token has a tag."""
    return " ".join("".join(tokens[start:end]) for start, end in spans(tags))
