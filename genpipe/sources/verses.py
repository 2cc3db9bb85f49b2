"""Poems with their verse form and their dynasty: the conditions under which verse is to be written."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.params.corpora import Verses
from genpipe.sources.documents import Record, file_counts, write_sides
from genpipe.sources.poems import read_poems
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import content_order, digest, distinct, groups, split_by_group
from genpipe.sources.verse import HAN, form_of, lines_of, verse_of

PLAIN = re.compile(f"[{HAN}，。？！；、：]+")  # no lost character, and no other mark


def prepare_verses(source: Path, directory: Path, dataset: Verses) -> Prepared:
    """Write train.jsonl and test.jsonl with id, text, form, as 5x8, and dynasty.

    Poems that share a line, also by way of others and across dynasties, are on one side.
    """
    left_out: Counter[str] = Counter()
    found = list(_poems(source, dataset, left_out))
    contents = [digest(record["text"].encode()) for record in found]
    kept = distinct(contents, [record["dynasty"] for record in found])
    left_out["copy of another poem"] = kept.copies
    left_out["poem that stands under several dynasties"] = kept.contradicting
    order = content_order([contents[i] for i in kept.items])
    chosen = _at_most([found[kept.items[place]] for place in order], dataset.most, left_out)
    if not chosen:
        raise BadInput(f"{source}: no poem of the forms {', '.join(dataset.forms)}; name other forms")
    own = [digest(record["text"].encode()) for record in chosen]
    lines = [lines_of([record["text"]]) for record in chosen]
    tested = split_by_group(own, dataset.test_share, lines, [_cell(record) for record in chosen])
    # Hashed once more: of a form with many poems those with the smallest digests were chosen, and would come first.
    places = [digest(b"order" + content) for content in own]
    counts = write_sides(directory, chosen, places, tested)
    notes = [_cells(chosen), _grouping(lines)]
    return Prepared(tuple(counts), {}, file_counts(counts), left_out, notes)


def _poems(source: Path, dataset: Verses, left_out: Counter[str]) -> Iterator[Record]:
    """The poems of the forms; the others are counted."""
    if not source.is_dir():
        raise BadInput(
            f"{source}: a file; name a folder with {', '.join(f'{d}.jsonl' for d in dataset.dynasties)}"
        )
    for dynasty in dataset.dynasties:
        path = source / f"{dynasty}.jsonl"
        if not path.is_file():
            raise BadInput(f"{path}: no such file; put it there, or name other dynasties")
        for poem in read_poems(path):
            text = "".join(verse_of(poem.paragraphs).paragraphs)
            form = form_of(text)
            if not PLAIN.fullmatch(text):
                left_out["poem with a lost character, an unusual mark, or without verse"] += 1
            elif form not in dataset.forms:
                left_out["poem of another form"] += 1
            else:
                yield {"id": poem.id, "text": text, "form": form, "dynasty": dynasty}


def _at_most(records: Sequence[Record], most: int | None, left_out: Counter[str]) -> list[Record]:
    """The first `most` of each form and dynasty."""
    seen: Counter[tuple[str, str]] = Counter()
    chosen: list[Record] = []
    for record in records:
        cell = _cell(record)
        seen[cell] += 1
        if most is None or seen[cell] <= most:
            chosen.append(record)
    left_out[f"poem beyond the {most} of its form and dynasty"] = len(records) - len(chosen)
    return chosen


def _cell(record: Mapping[str, str]) -> tuple[str, str]:
    return record["dynasty"], record["form"]


def _cells(records: Sequence[Record]) -> str:
    """How many poems there are of each form and dynasty, in words."""
    counts = Counter(map(_cell, records))
    return "; ".join(f"{dynasty} {form}: {number:,}" for (dynasty, form), number in sorted(counts.items()))


def _grouping(lines: Sequence[Sequence[str]]) -> str:
    joined = [size for size in Counter(groups(lines)).values() if size > 1]
    return (
        f"{sum(joined):,} of {len(lines):,} poems share a line with others: {len(joined):,} groups, each on one side, "
        f"the largest of {max(joined, default=1):,}"
    )
