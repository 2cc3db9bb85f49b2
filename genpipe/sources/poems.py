"""Poems as documents."""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from genpipe.errors import BadInput
from genpipe.params.corpora import Dataset
from genpipe.sources.jsonl import read_jsonl, write_jsonl
from genpipe.sources.prepared import Prepared

NOTE = re.compile("（[^（）]*）")  # editors' notes on variants stand in brackets; they are not verse


class Poem(NamedTuple):
    """A poem as data/poems holds it; `tones` has one string for each paragraph, or is empty."""

    id: str
    title: str
    author: str
    paragraphs: list[str]
    tones: list[str]


def read_poems(path: Path) -> Iterator[Poem]:
    """The poems of a .jsonl file in Unicode's NFC; only `paragraphs` is required of a record."""
    for number, record in read_jsonl(path):
        paragraphs = _texts(path, number, record, "paragraphs")
        tones = _texts(path, number, record, "tones") if "tones" in record else []
        yield Poem(
            id=str(record.get("id", number)),
            title=_normal(str(record.get("title", ""))),
            author=_normal(str(record.get("author", ""))),
            paragraphs=[_normal(paragraph) for paragraph in paragraphs],
            tones=tones if len(tones) == len(paragraphs) else [],
        )


def prepare_poems(source: Path, directory: Path, dataset: Dataset) -> Prepared:
    """Write documents.jsonl, without editors' notes; poems without text are left out."""
    with (directory / "documents.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        number = write_jsonl(file, _documents(source))
    if not number:
        raise BadInput(
            f"{source}: wanted poems, found none with text; each line is an object with a list `paragraphs`"
        )
    return Prepared({"documents.jsonl": number})


def _documents(source: Path) -> Iterator[dict[str, Any]]:
    for poem in read_poems(source):
        paragraphs = [verse for paragraph in poem.paragraphs if (verse := NOTE.sub("", paragraph).strip())]
        if paragraphs:
            yield {"id": poem.id, "title": poem.title, "author": poem.author, "paragraphs": paragraphs}


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _texts(path: Path, number: int, record: dict[str, Any], key: str) -> list[str]:
    texts = record.get(key)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput(
            f"{path}: line {number}: wanted a list of strings in {key!r}, found {str(texts)[:40]}; mend it"
        )
    return texts
