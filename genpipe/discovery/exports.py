"""A lexicon as files of other libraries: a dictionary of jieba, and a Unigram model of Hugging Face tokenizers.

jieba: a line a word, `word count`. `jieba.Tokenizer(dictionary=FILE)` with HMM=False then cuts Chinese characters as the
tokenizer `lexicon` does, ties included; `jieba.load_userdict(FILE)` adds the words to those of jieba's own dictionary,
against whose counts (60 million) theirs stand. A word with characters that jieba never joins, as punctuation or
characters outside U+4E00 to U+9FD5, is in the file and not found.

unigram: the splits are those of the tokenizer `lexicon`, with two exceptions. Of splits that score the same, it takes the
one with the longer last word (`lexicon`: first word). And it may cut a run of ASCII letters and digits where words of the
lexicon lie in it (`lexicon`: never). A character that is in no word is the unknown token, one a character.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from genpipe.discovery.lexicon_files import read_counts
from genpipe.errors import BadInput
from genpipe.files import new_file

UNKNOWN = "<not in the lexicon>"  # no text has it: white space, which it holds, is removed
SPACE = r"[\s\x{1C}-\x{1F}]+"  # Python's white space has four characters that Unicode's has not
UNIT = re.compile(r"[A-Za-z0-9]+|\S")  # what words of a lexicon are made of
LATIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")

Counts = Mapping[str, int]


def export_lexicon(lexicon: Path, to: str, out: Path) -> None:
    """Write the words of a lexicon file (word<TAB>count a line) as `to` reads them, one of EXPORTS."""
    if to not in EXPORTS:
        raise BadInput(f"no format {to!r} of lexicons; there are: {', '.join(EXPORTS)}")
    text = EXPORTS[to](read_counts(lexicon))
    with new_file(out) as partial:
        partial.write_bytes(text.encode())


def for_jieba(counts: Counts) -> str:
    """The lines of a dictionary of jieba, the most frequent word first."""
    if bad := next((word for word in counts if word.startswith("\ufeff")), None):
        raise BadInput(f"the word {bad!r} begins with U+FEFF, which jieba takes off; delete the line")
    return "".join(f"{word} {counts[word]}\n" for word in _by_count(counts))


def for_hugging_face(counts: Counts) -> str:
    """The text of a tokenizer file."""
    return unigram_of(counts).to_str(pretty=True) + "\n"


def unigram_of(counts: Counts) -> tokenizers.Tokenizer:
    """A Hugging Face tokenizer that cuts texts as the tokenizer `lexicon` does, with the exceptions above."""
    total = math.log(sum(counts.values()))
    rows = [(UNKNOWN, -total)]
    rows += [(word, math.log(counts[word]) - total) for word in _by_count(counts)]
    # else they would be unknown, at a cost that is not that of a count of one
    parts = sorted({unit for word in counts for unit in UNIT.findall(word)} - counts.keys())
    rows += [(part, -total) for part in parts]
    model = tokenizers.Tokenizer(models.Unigram(rows, 0, False))
    cut = [pre_tokenizers.Split(tokenizers.Regex(SPACE), "removed")]
    # the model joins unknown characters in a row to one token, so each is cut off before
    cut += [pre_tokenizers.Split(tokenizers.Regex(_unknown({*"".join(counts)})), "isolated")]
    model.pre_tokenizer = pre_tokenizers.Sequence(cut)
    model.decoder = decoders.Fuse()
    return model


EXPORTS: Mapping[str, Callable[[Counts], str]] = MappingProxyType(
    {"jieba": for_jieba, "unigram": for_hugging_face}
)


def _by_count(counts: Counts) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))


def _unknown(known: set[str]) -> str:
    """A regular expression for a character that is not known, or a run of letters and digits that are not."""
    others = f"[^{_ranges(known | LATIN)}]"
    letters = LATIN - known
    return f"[{_ranges(letters)}]+|{others}" if letters else others


def _ranges(characters: Iterable[str]) -> str:
    """Characters as ranges of a class of a regular expression."""
    codes = sorted(map(ord, characters))
    breaks = [place for place, (before, after) in enumerate(pairwise(codes), start=1) if after > before + 1]
    bounds = zip([0, *breaks], [*breaks, len(codes)], strict=True)
    return "".join(rf"\x{{{codes[start]:X}}}-\x{{{codes[end - 1]:X}}}" for start, end in bounds)
