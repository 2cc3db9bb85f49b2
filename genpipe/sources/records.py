"""Records with fields of their own, as JSON Lines: texts with groups, tags, labels, questions or answers."""

import json
from collections.abc import Iterator
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.files import is_hidden
from genpipe.params.corpora import Records
from genpipe.sources.documents import Record, file_counts, write_documents
from genpipe.sources.jsonl import read_jsonl, write_jsonl
from genpipe.sources.prepared import Prepared


def prepare_records(source: Path, directory: Path, dataset: Records) -> Prepared:
    """Write the records of a .jsonl file, or of a folder with one file a split: train.jsonl, and any others."""
    counts = (
        _by_file(source, directory, dataset) if source.is_dir() else _by_share(source, directory, dataset)
    )
    return Prepared(tuple(counts), {}, file_counts(counts))


def _by_file(source: Path, directory: Path, dataset: Records) -> dict[str, int]:
    """A split for each file of a folder."""
    files = {path.stem: path for path in sorted(source.glob("*.jsonl")) if not is_hidden(Path(path.name))}
    if "train" not in files:
        raise BadInput(f"{source}: no train.jsonl in it; put it there, or name a .jsonl file as the source")
    if dataset.test_share is not None:
        raise BadInput(f"{source}: its files are the splits, so test_share has no use; remove test_share")
    counts: dict[str, int] = {}
    for split in sorted(files, key=lambda name: (name != "train", name)):
        with (directory / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            counts[split] = write_jsonl(file, _records(files[split]))
        if not counts[split]:
            raise BadInput(f"{files[split]}: no records in it; add some, or remove the file")
    return counts


def _by_share(source: Path, directory: Path, dataset: Records) -> dict[str, int]:
    """Equal records are on one side."""
    counts = write_documents(
        directory,
        lambda: _records(source),
        dataset.test_share,
        lambda record: [json.dumps(record, sort_keys=True)],
    )
    if not any(counts.values()):
        raise BadInput(f"{source}: no records in it; put one JSON object a line there")
    return counts


def _records(path: Path) -> Iterator[Record]:
    return (record for _, record in read_jsonl(path))
