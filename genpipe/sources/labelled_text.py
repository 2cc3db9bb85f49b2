"""Texts by class: a file a class, a text a line."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.params.corpora import LabelledText
from genpipe.sources.documents import Record, file_counts, write_sides
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import digest, distinct, groups, split_by_group
from genpipe.sources.text import documents, text_files

# a clause of so many word characters is not the same in two texts by chance
MIN_CLAUSE = 12
CLAUSE = re.compile(r"\w+")


def prepare_labelled_text(source: Path, directory: Path, dataset: LabelledText) -> Prepared:
    """Write train.jsonl and test.jsonl with text and label, the name of the file.

    Equal texts are one; of a text with several labels nothing is kept. Texts that share a clause of twelve word characters
    or more, also by way of others, are on one side.
    """
    files = text_files(source) if source.is_dir() else []
    if len(files) < 2:
        raise BadInput(
            f"{source}: {len(files)} .txt files; put one there for each class, a text a line, and at least two"
        )
    found: list[Record] = [
        {"text": record["text"], "label": path.stem} for path in files for record in documents([path], path)
    ]
    contents = [digest(record["text"].encode()) for record in found]
    kept = distinct(contents, [record["label"] for record in found])
    records, own = [found[i] for i in kept.items], [contents[i] for i in kept.items]
    clauses = [[part for part in CLAUSE.findall(r["text"]) if len(part) >= MIN_CLAUSE] for r in records]
    tested = split_by_group(own, dataset.test_share, clauses, [record["label"] for record in records])
    counts = write_sides(directory, records, own, tested)
    left_out = {
        "copy of another text": kept.copies,
        "text under two or more labels, with its copies": kept.contradicting,
    }
    return Prepared(tuple(counts), {}, file_counts(counts), left_out, _notes(records, clauses))


def _notes(records: Sequence[Record], clauses: Sequence[Sequence[str]]) -> list[str]:
    """How many texts there are of each label, and how many share a clause, in words."""
    counts = Counter(record["label"] for record in records)
    joined = [size for size in Counter(groups(clauses)).values() if size > 1]
    return [
        "; ".join(f"{label}: {number:,}" for label, number in sorted(counts.items())),
        f"{sum(joined):,} of {len(records):,} texts share a clause with others: {len(joined):,} groups, each on one side, "
        f"the largest of {max(joined, default=1):,}",
    ]
