"""Couplets (上联, 下联) out of regulated verse, filtered by the rules of its tones.

The second and third paragraph of an eight-line poem are antithetical by rule (颔联, 颈联). Reference: 王力, 漢語詩律學, 1958.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from genpipe.errors import BadInput
from genpipe.params.corpora import Dataset
from genpipe.sources.jsonl import write_jsonl
from genpipe.sources.poems import Poem, read_poems
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import is_test

HAN = "〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # □, a lost character, is none of them
COUPLET = re.compile(f"([{HAN}]{{5}})，([{HAN}]{{5}})。|([{HAN}]{{7}})，([{HAN}]{{7}})。")
IS_HAN = re.compile(f"[{HAN}]")
LEVEL, OBLIQUE, EITHER = "平仄○"
MARKS = str.maketrans("？通", EITHER * 2)  # the source's other marks: unknown, and both


class Couplet(NamedTuple):
    """Two lines of one length and the tones of their characters."""

    poem: str
    id: str
    text: str  # upper line, line feed, lower line
    tones: str  # the same in 平, 仄 and ○


def prepare_couplets(source: Path, directory: Path, dataset: Dataset) -> Prepared:
    """Write train.jsonl and test.jsonl, no poem and no line in both, and the tone of each character in tones.tsv."""
    poems = list(read_poems(source))
    regulated = (couplet for poem in poems for couplet in poem_couplets(poem) if is_regulated(couplet))
    train, test = _split(regulated, dataset.test_share)
    if not train or not test:
        raise BadInput(
            f"{source}: wanted couplets to train and to test, found {len(train)} and {len(test)}; "
            "it needs poems of four paragraphs like 感時花濺淚，恨別鳥驚心。 with their `tones`, or another test_share"
        )
    counts = {"train.jsonl": _write(directory / "train.jsonl", train)}
    counts["test.jsonl"] = _write(directory / "test.jsonl", test)
    counts["tones.tsv"] = _write_tones(directory / "tones.tsv", poems)
    return Prepared(counts)


def poem_couplets(poem: Poem) -> Iterator[Couplet]:
    """The two middle couplets of a poem that is four pairs of lines, where their tones are known."""
    matches = [COUPLET.fullmatch(paragraph) for paragraph in poem.paragraphs]
    if len(matches) != 4 or not all(matches) or not poem.tones:
        return
    for place in (1, 2):
        upper, lower = poem.paragraphs[place].rstrip("。").split("，")
        marks = poem.tones[place].translate(MARKS)
        tones = re.fullmatch(f"([平仄○]{{{len(upper)}}}).([平仄○]{{{len(lower)}}}).", marks)
        if tones:
            yield Couplet(poem.id, f"{poem.id}-{place + 1}", f"{upper}\n{lower}", f"{tones[1]}\n{tones[2]}")


def is_regulated(couplet: Couplet) -> bool:
    """Whether the even positions oppose, the upper line ends oblique and the lower one level; ○ is either."""
    upper, lower = couplet.tones.split("\n")
    opposed = all({a, b} not in ({LEVEL}, {OBLIQUE}) for a, b in zip(upper[1::2], lower[1::2], strict=True))
    return opposed and upper[-1] != LEVEL and lower[-1] != OBLIQUE


def character_tones(poems: Iterable[Poem]) -> dict[str, Counter[str]]:
    """How often each character is marked 平, 仄 and ○, over the paragraphs whose marks fit character by character."""
    marks: dict[str, Counter[str]] = defaultdict(Counter)
    for poem in poems:
        for text, tones in zip(
            poem.paragraphs, poem.tones, strict=False
        ):  # without tones there is nothing to count
            pairs = [(a, b) for a, b in zip(text, tones.translate(MARKS), strict=False) if IS_HAN.match(a)]
            if len(text) == len(tones) and all(mark in "平仄○" for _, mark in pairs):
                for character, mark in pairs:
                    marks[character][mark] += 1
    return marks


def _split(couplets: Iterable[Couplet], test_share: float) -> tuple[list[Couplet], list[Couplet]]:
    """Couplets to train and to test: both of a poem on one side, the first of each text only."""
    distinct: dict[str, Couplet] = {}
    for couplet in couplets:
        distinct.setdefault(couplet.text, couplet)
    train = [couplet for couplet in distinct.values() if not is_test(couplet.poem, test_share)]
    known = {line for couplet in train for line in couplet.text.split("\n")}
    # Poems are handed down in variants: a test couplet that shares a line with training would be half known.
    kept = (couplet for couplet in distinct.values() if is_test(couplet.poem, test_share))
    return train, [couplet for couplet in kept if known.isdisjoint(couplet.text.split("\n"))]


def _write(path: Path, couplets: list[Couplet]) -> int:
    records = ({"id": couplet.id, "text": couplet.text, "tones": couplet.tones} for couplet in couplets)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        return write_jsonl(file, records)


def _write_tones(path: Path, poems: list[Poem]) -> int:
    """A row for each character of one usual tone: how often it has it, and the share of that in all its marks."""
    rows = []
    for character, marks in sorted(character_tones(poems).items()):
        tone, count = max(marks.items(), key=lambda item: (item[1], item[0]))
        if tone != EITHER:  # a character with two readings says nothing about a line
            rows.append(f"{character}\t{tone}\t{count}\t{count / marks.total():.4f}\n")
    path.write_text("character\ttone\tcount\tshare\n" + "".join(rows), encoding="utf-8", newline="\n")
    return len(rows)
