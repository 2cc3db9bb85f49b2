"""Couplets (上联, 下联) out of regulated verse, filtered by the rules of its tones.

The second and third paragraph of an eight-line poem are antithetical by rule (颔联, 颈联). Reference: 王力, 漢語詩律學, 1958.
A couplet is kept where the marks of its tones, one for each character, oppose at the 2nd, 4th and 6th place, the upper line ends
oblique and the lower one level; a character of both tones may be either.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from genpipe.errors import BadInput
from genpipe.params.corpora import Couplets
from genpipe.sources.jsonl import write_jsonl
from genpipe.sources.near_lines import near_lines
from genpipe.sources.poems import Poem, read_poems
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import digest, distinct, groups, split_by_group
from genpipe.sources.verse import HAN, lines_of

COUPLET = re.compile(f"([{HAN}]{{5}})，([{HAN}]{{5}})。|([{HAN}]{{7}})，([{HAN}]{{7}})。")
IS_HAN = re.compile(f"[{HAN}]")
LEVEL, OBLIQUE, EITHER = "平仄○"
# The source fits the mark of a character with two readings to its place: below this share, a tone is the rule's own
MIN_TONE_SHARE = 0.95
Marks = dict[str, Counter[str]]  # of each character: how often it is marked 平, 仄 and ○
MARKS = str.maketrans("？通", EITHER * 2)  # the source's other marks: unknown, and both


class Couplet(NamedTuple):
    """Two lines of one length and the tones of their characters."""

    poem: str
    id: str
    text: str  # upper line, line feed, lower line
    tones: str  # the same in 平, 仄 and ○
    lines: tuple[str, ...] = ()  # all lines of the poem


def prepare_couplets(source: Path, directory: Path, dataset: Couplets) -> Prepared:
    """Write train.jsonl and test.jsonl, and the tones of characters that have one in tones.tsv.

    Poems that share a line, also by way of others, are on one side; likewise couplets that differ in `near` characters or fewer.
    """
    marks: Marks = defaultdict(Counter)
    seen: Counter[bool] = Counter()
    regulated = list(_regulated(_poems(source, dataset), marks, seen))
    unique = distinct([digest(couplet.text.encode()) for couplet in regulated])
    couplets = [regulated[number] for number in unique.items]
    lines: list[list[Hashable]] = [[*couplet.lines] for couplet in couplets]
    notes = [_grouping(couplets, lines)]
    if dataset.near:
        notes.append(f"{len(regulated):,} of {seen.total():,} couplets with tones obey the rules")
        notes.append(_join_near_copies(couplets, lines, dataset.near))
    tested = split_by_group(
        [digest(couplet.text.encode()) for couplet in couplets], dataset.test_share, lines
    )
    train, test = (list(compress(couplets, side)) for side in ([not t for t in tested], tested))
    if not train or not test:
        raise BadInput(
            f"{source}: needs couplets to train and to test, has {len(train)} and {len(test)}; "
            "take poems of four paragraphs like 感時花濺淚，恨別鳥驚心。 with their `tones`, or another test_share"
        )
    counts = {"train.jsonl": _write(directory / "train.jsonl", train)}
    counts["test.jsonl"] = _write(directory / "test.jsonl", test)
    rows, left_out = _tone_rows(marks)
    counts["tones.tsv"] = len(rows)
    _write_tones(directory / "tones.tsv", rows)
    return Prepared(
        ("train", "test"),
        {},
        counts,
        {"copy of another couplet": unique.copies} | left_out,
        notes,
    )


def _poems(source: Path, dataset: Couplets) -> Iterator[Poem]:
    """The poems of a file, or those of each dynasty in a folder."""
    if not source.is_dir():
        yield from read_poems(source)
        return
    for dynasty in dataset.dynasties:
        path = source / f"{dynasty}.jsonl"
        if not path.is_file():
            raise BadInput(f"{path}: no such file; put it there, or name other dynasties")
        yield from read_poems(path)


def _regulated(poems: Iterable[Poem], marks: Marks, seen: Counter[bool]) -> Iterator[Couplet]:
    """The couplets that obey the rules; `marks` counts those of the characters of all poems, `seen` how many obey and how many do not."""
    for poem in poems:
        count_marks(poem, marks)
        for couplet in poem_couplets(poem):
            seen[is_regulated(couplet)] += 1
            if is_regulated(couplet):
                yield couplet


def _join_near_copies(couplets: Sequence[Couplet], lines: Sequence[list[Hashable]], most: int) -> str:
    """Give near copies a key in common; how many there are, in words."""
    pairs = list(near_lines([couplet.text for couplet in couplets], most))
    for pair in pairs:
        for member in pair:
            lines[member].append(pair)
    return f"{len(pairs):,} pairs of couplets differ in {most} characters or fewer, each on one side"


def poem_couplets(poem: Poem) -> Iterator[Couplet]:
    """The two middle couplets of a poem that is four pairs of lines, where their tones are known."""
    lines = tuple(lines_of(poem.paragraphs))
    matches = [COUPLET.fullmatch(paragraph) for paragraph in poem.paragraphs]
    if len(matches) != 4 or not all(matches) or not poem.tones:
        return
    for place in (1, 2):
        upper, lower = poem.paragraphs[place].rstrip("。").split("，")
        marks = poem.tones[place].translate(MARKS)
        tones = re.fullmatch(f"([平仄○]{{{len(upper)}}}).([平仄○]{{{len(lower)}}}).", marks)
        if tones:
            yield Couplet(
                poem.id, f"{poem.id}-{place + 1}", f"{upper}\n{lower}", f"{tones[1]}\n{tones[2]}", lines
            )


def is_regulated(couplet: Couplet) -> bool:
    """Whether the even positions oppose, the upper line ends oblique and the lower one level; ○ is either."""
    upper, lower = couplet.tones.split("\n")
    opposed = all({a, b} not in ({LEVEL}, {OBLIQUE}) for a, b in zip(upper[1::2], lower[1::2], strict=True))
    return opposed and upper[-1] != LEVEL and lower[-1] != OBLIQUE


def count_marks(poem: Poem, marks: Marks) -> None:
    """Count how often each character is marked 平, 仄 and ○, over the paragraphs whose marks fit character by character."""
    # without tones there is nothing to count
    for text, tones in zip(poem.paragraphs, poem.tones, strict=False):
        pairs = [(a, b) for a, b in zip(text, tones.translate(MARKS), strict=False) if IS_HAN.match(a)]
        if len(text) == len(tones) and all(mark in "平仄○" for _, mark in pairs):
            for character, mark in pairs:
                marks[character][mark] += 1


def _grouping(couplets: Sequence[Couplet], lines: Sequence[Iterable[Hashable]]) -> str:
    """How many poems share lines with others, in words."""
    poems: dict[int, set[str]] = defaultdict(set)
    for group, couplet in zip(groups(lines), couplets, strict=True):
        poems[group].add(couplet.poem)
    joined = [len(members) for members in poems.values() if len(members) > 1]
    return (
        f"{sum(joined):,} of {sum(map(len, poems.values())):,} poems share lines with others: {len(joined):,} groups, "
        f"each on one side, the largest of {max(joined, default=1):,}"
    )


def _write(path: Path, couplets: list[Couplet]) -> int:
    records = (_record(couplet) for couplet in couplets)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        return write_jsonl(file, records)


def _record(couplet: Couplet) -> dict[str, str]:
    upper, lower = couplet.text.split("\n")
    return {
        "id": couplet.id,
        "text": couplet.text,
        "upper": upper,
        "lower": lower,
        "tones": couplet.tones,
    }


def _tone_rows(marks_of: Marks) -> tuple[list[str], dict[str, int]]:
    """A row for each character of one tone, with its count and its share in the character's marks; what was left out."""
    rows, left_out = [], Counter[str]()
    for character, marks in sorted(marks_of.items()):
        tone, count = max(marks.items(), key=lambda item: (item[1], item[0]))
        if tone == EITHER:
            left_out[f"character mostly marked {EITHER}, of two readings, in tones.tsv"] += 1
        elif count < MIN_TONE_SHARE * marks.total():
            left_out[
                f"character of one tone in less than {MIN_TONE_SHARE:.0%} of its marks, in tones.tsv"
            ] += 1
        else:
            rows.append(f"{character}\t{tone}\t{count}\t{count / marks.total():.4f}\n")
    return rows, dict(left_out)


def _write_tones(path: Path, rows: Sequence[str]) -> None:
    path.write_text("character\ttone\tcount\tshare\n" + "".join(rows), encoding="utf-8", newline="\n")
