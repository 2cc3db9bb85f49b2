"""Poems as documents."""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from genpipe.errors import BadInput
from genpipe.params.corpora import Poems
from genpipe.sources.documents import file_counts, write_documents
from genpipe.sources.jsonl import read_jsonl
from genpipe.sources.prepared import Prepared
from genpipe.sources.verse import verse_of


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


def prepare_poems(source: Path, directory: Path, dataset: Poems) -> Prepared:
    """Write documents, without editors' notes and stage directions; poems without other text are left out."""
    seen: Counter[str] = Counter()
    records = list(_documents(source, seen))
    if not records:
        raise BadInput(f"{source}: no poem with text; each line must be an object with a list `paragraphs`")
    counts = write_documents(
        directory, lambda: iter(records), dataset.test_share, lambda record: record["paragraphs"]
    )
    notes = [
        f"removed {seen['notes']:,} notes in brackets from {seen['poems with notes']:,} poems; "
        f"{seen['unclosed']:,} never close and were taken to end with their paragraph; "
        f"{seen['stray']:,} closing brackets had no opening one and were removed alone"
    ]
    left_out = {"poem without verse": seen["without verse"]}
    said = notes if seen["notes"] or seen["stray"] else []
    return Prepared(tuple(counts), {}, file_counts(counts), left_out, said)


def _documents(source: Path, seen: Counter[str]) -> Iterator[dict[str, Any]]:
    """A record for each poem with verse; what was removed is counted in `seen`."""
    for poem in read_poems(source):
        verse = verse_of(poem.paragraphs)
        seen.update(notes=verse.notes, unclosed=verse.unclosed, stray=verse.stray)
        seen["poems with notes"] += bool(verse.notes)
        if verse.paragraphs:
            yield {
                "id": poem.id,
                "title": poem.title,
                "author": poem.author,
                "paragraphs": verse.paragraphs,
            }
        else:
            seen["without verse"] += 1


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _texts(path: Path, number: int, record: dict[str, Any], key: str) -> list[str]:
    texts = record.get(key)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput(
            f"{path}: line {number}: {key!r} must be a list of strings, not {str(texts)[:40]}; fix the line"
        )
    return texts
