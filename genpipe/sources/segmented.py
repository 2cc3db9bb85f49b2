"""Texts whose words are marked, as characters with the tags B, M, E and S."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.params.corpora import Segmented
from genpipe.sources.documents import Record, file_counts, write_sides
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import digest, distinct, split_by_group
from genpipe.sources.text import documents, text_files

BLOCK = 50  # neighbouring lines that are on one side: texts of a newspaper go on from line to line
ENDS = frozenset("。!?")  # of sentences, in the form NFKC


def prepare_segmented(source: Path, directory: Path, dataset: Segmented) -> Prepared:
    """Write train.jsonl and test.jsonl with the text of each sentence and a tag for each of its characters.

    Each line has words with white space between them. Characters are in the form NFKC. Equal sentences are one, and blocks of
    fifty neighbouring lines are on one side.
    """
    files = text_files(source) if source.is_dir() else [source]
    found: list[Record] = []
    blocks: list[str] = []
    for path in files:
        for number, document in enumerate(documents([path], path)):
            for words in _sentences(_words(document["text"], dataset.annotation)):
                found.append(_tagged(words))
                blocks.append(f"{path.name} {number // BLOCK}")
    if not found:
        raise BadInput(f"{source}: no text; give lines of words with spaces between them")
    digests = [digest(record["text"].encode()) for record in found]
    kept = distinct(digests, ["".join(record["tags"]) for record in found])
    records, own = [found[i] for i in kept.items], [digests[i] for i in kept.items]
    tested = split_by_group(own, dataset.test_share, [[blocks[i]] for i in kept.items])
    counts = write_sides(directory, records, own, tested)
    left_out = {
        "copy of another sentence": kept.copies,
        "sentence that is cut in two or more ways, with its copies": kept.contradicting,
    }
    words = sum(tag in "BS" for record in records for tag in record["tags"])
    characters = sum(len(record["tags"]) for record in records)
    notes = [f"{words:,} words of {characters:,} characters"]
    return Prepared(tuple(counts), {}, file_counts(counts), left_out, notes)


def _words(line: str, annotation: str | None) -> Iterator[str]:
    """The words of a line without what is written behind them, in the form NFKC, without white space inside."""
    for written in line.split():
        word = written.rpartition(annotation)[0] or written if annotation else written
        if word := "".join(unicodedata.normalize("NFKC", word).split()):
            yield word


def _sentences(words: Iterator[str]) -> Iterator[list[str]]:
    """Words up to the end of each sentence; a mark of an end stays with what it ends."""
    sentence: list[str] = []
    for word in words:
        sentence.append(word)
        if word in ENDS:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _tagged(words: list[str]) -> Record:
    tags = [tag for word in words for tag in ("S" if len(word) == 1 else f"B{'M' * (len(word) - 2)}E")]
    return {"text": "".join(words), "tags": tags}
