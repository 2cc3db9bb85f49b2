"""Verse without editors' notes and stage directions, which stand in brackets and may run over several paragraphs."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Either width opens and closes: plays mix them. Other brackets ([, 〔, ［, {) hold verse: restored or composed characters.
OPENING = {"（": "round", "(": "round", "〖": "lenticular"}
CLOSING = {"）": "round", ")": "round", "〗": "lenticular"}
BRACKET = re.compile(f"[{re.escape(''.join([*OPENING, *CLOSING]))}]")
WORD = re.compile(r"\w")
HAN = (
    "〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # □, a lost character, is not among them
)
LINE = re.compile(f"[{HAN}]+")


class Verse(NamedTuple):
    """What is left of a poem, and how many brackets decided it."""

    paragraphs: list[str]  # those with a word character
    notes: int = 0  # removed
    unclosed: int = (
        0  # of these, without an end: such a one ends with its paragraph, so that it takes no more with it
    )
    stray: int = 0  # closing brackets without an opening one, removed alone


class Span(NamedTuple):
    """A stretch of text to remove."""

    start: int
    stop: int


def verse_of(paragraphs: Sequence[str]) -> Verse:
    """The paragraphs of a poem without what stands in brackets, followed over all of them."""
    text = "\n".join(paragraphs)
    closed, openings, stray = _matched(text)
    outer = list(_outermost(closed))
    unclosed = [start for start in openings if not any(a < start < b for a, b in outer)]
    removed = [*outer, *(Span(start, _end_of_paragraph(text, start)) for start in unclosed)]
    removed += [Span(place, place + 1) for place in stray]
    kept = (part.strip() for part in _without(text, removed).split("\n"))
    return Verse(
        [part for part in kept if WORD.search(part)], len(outer) + len(unclosed), len(unclosed), len(stray)
    )


def lines_of(paragraphs: Sequence[str]) -> list[str]:
    """The lines of verse: what stands between marks of punctuation."""
    return [line for paragraph in paragraphs for line in LINE.findall(paragraph)]


def form_of(text: str) -> str | None:
    """The form of verse, as 5x8: characters a line x lines; None where its lines differ in length, or where there are none."""
    lengths = [len(line) for line in lines_of([text])]
    return f"{lengths[0]}x{len(lengths)}" if len({*lengths}) == 1 else None


def _matched(text: str) -> tuple[list[Span], list[int], list[int]]:
    """The stretches from an opening bracket to its closing one; the openings, and the closings, that have no partner."""
    closed, openings, stray = [], [], []
    stack: list[int] = []
    for match in BRACKET.finditer(text):
        place, bracket = match.start(), match[0]
        if bracket in OPENING:
            stack.append(place)
            continue
        depth = max(
            (i for i, start in enumerate(stack) if OPENING[text[start]] == CLOSING[bracket]), default=None
        )
        if depth is None:
            stray.append(place)
        else:
            closed.append(Span(stack[depth], place + 1))
            openings += stack[depth + 1 :]
            del stack[depth:]
    return closed, openings + stack, stray


def _outermost(spans: Sequence[Span]) -> Iterator[Span]:
    """The spans that are in no other one."""
    end = 0
    for span in sorted(spans):
        if span.start >= end:
            yield span
            end = span.stop


def _end_of_paragraph(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end


def _without(text: str, spans: Sequence[Span]) -> str:
    """The text without the spans; line feeds stay, so that the paragraphs around a note are not joined."""
    hidden = bytearray(len(text))
    for start, stop in spans:
        hidden[start:stop] = b"\1" * (stop - start)
    return "".join(c for c, gone in zip(text, hidden, strict=True) if c == "\n" or not gone)
