"""Poems with their titles: from the body, the title is to be written."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.params.corpora import Titles
from genpipe.sources.documents import Record, file_counts, write_sides
from genpipe.sources.poems import Poem, read_poems
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import digest, distinct, groups, split_by_group
from genpipe.sources.verse import lines_of, verse_of

# what names a form or says that there is no title: no body tells it from another one
FORMS = frozenset(
    [
        "句",
        "佚句",
        "逸句",
        "殘句",
        "詩",
        "古詩",
        "雜詩",
        "五言",
        "七言",
        "五言詩",
        "七言詩",
        "五言白話詩",
        "白話詩",
        "詩偈",
        "偈",
        "偈頌",
        "偈語",
        "頌",
        "頌古",
        "讚",
        "贊",
        "歌",
        "吟",
        "詞",
        "銘",
        "絕句",
        "律詩",
        "口號",
        "失題",
        "無題",
        "闕題",
        "缺題",
        "逸題",
        "佚題",
        "題闕",
        "又",
        "又一首",
        "同前",
        "闕",
    ]
)
# which of a series a poem is, and how many there are: no body tells that either
NUMBER = "[一二三四五六七八九十百廿卅○〇]+"
PLACE = re.compile(rf"\s+(其|第|之)?({NUMBER}|\d+)(首)?$")
SERIES = re.compile(f"{NUMBER}首$")
EDITED = re.compile(r"[\[\]［］〔〕]")  # around characters that editors restored: these stay
COMPOSED = re.compile(r"[{}/?□…]")  # a character that is lost, or has no code point
AROUND = " 　，。：；、"
MIN_LINE = 5  # characters; that shorter lines are equal says nothing
MIN_BODY = 10  # characters; what is shorter is a fragment


def prepare_titles(source: Path, directory: Path, dataset: Titles) -> Prepared:
    """Write train.jsonl and test.jsonl with id, author, title and body, without editors' notes.

    Poems that share a line, and those of one author and title, also by way of others, are on one side.
    """
    left_out: Counter[str] = Counter()
    records = list(_titled(read_poems(source), left_out, dataset.max_title))
    contents = [digest(f"{record['title']}\n{record['body']}".encode()) for record in records]
    kept = distinct(contents)
    left_out["copy of another poem with its title"] = kept.copies
    records, contents = [records[i] for i in kept.items], [contents[i] for i in kept.items]
    if not records:
        raise BadInput(f"{source}: no poem with a title; each line needs `title` and `paragraphs`")
    keys = [_keys(record) for record in records]
    counts = write_sides(directory, records, contents, split_by_group(contents, dataset.test_share, keys))
    return Prepared(tuple(counts), {}, file_counts(counts), left_out, [_grouping(keys)])


def title_of(raw: str) -> str:
    """A title without editors' notes, without what follows a tab, and without the place in a series and its size."""
    (text,) = verse_of([raw.split("\t")[0]]).paragraphs or [""]
    return SERIES.sub("", PLACE.sub("", EDITED.sub("", text)).strip(AROUND)).strip(AROUND)


def _titled(poems: Iterator[Poem], left_out: Counter[str], longest: int) -> Iterator[Record]:
    """The poems whose title is to be learnt; the others are counted by reason."""
    for poem in poems:
        title = title_of(poem.title)
        body = "".join(verse_of(poem.paragraphs).paragraphs)
        reason = _reason(title, body, longest)
        if reason:
            left_out[reason] += 1
        else:
            yield {"id": poem.id, "author": poem.author, "title": title, "body": body}


def _reason(title: str, body: str, longest: int) -> str:
    """Why a poem is left out; nothing where it is not."""
    if not title:
        return "poem without a title"
    if title in FORMS:
        return "title that only names a form, or that there is no title"
    if COMPOSED.search(title):
        return "title with a character that is lost or has no code point"
    if len(title) > longest:
        return f"title of more than {longest} characters"
    return f"poem of fewer than {MIN_BODY} characters" if sum(map(len, lines_of([body]))) < MIN_BODY else ""


def _keys(record: Record) -> tuple[tuple[str, str], ...]:
    """What keeps poems on one side: their lines, and a series by its author and title."""
    lines = (line for line in lines_of([record["body"]]) if len(line) >= MIN_LINE)
    return (*(("line", line) for line in lines), (record["author"], record["title"]))


def _grouping(keys: Sequence[Sequence[tuple[str, str]]]) -> str:
    """How many poems share lines or a series with others, in words."""
    sizes = Counter(groups(keys)).values()
    joined = [size for size in sizes if size > 1]
    return (
        f"{sum(joined):,} of {len(keys):,} poems share a line, or author and title, with others: {len(joined):,} groups, "
        f"each on one side, the largest of {max(joined, default=1):,}"
    )
