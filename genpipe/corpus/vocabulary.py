"""A vocabulary: the tokens that get an id, the most frequent first."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genpipe.errors import BadState
from genpipe.files import TABLES, TOKENIZER_HASH, existing, new_directory, refuse_inputs, write_json
from genpipe.params.corpora import Corpus

UNKNOWN = "<unk>"  # id 0: every token that has no id of its own


def choose_tokens(counts: pa.Table, min_count: int, max_size: int | None) -> pa.Table:
    """The rows of `counts` (ordered, most frequent first) that get an id; `max_size` includes <unk>."""
    kept = counts.filter((pc.field("count") >= min_count) & (pc.field("token") != UNKNOWN))
    return kept if max_size is None else kept.slice(0, max_size - 1)


def read_counts(path: Path, command: str) -> pa.Table:
    """The columns token and count of a Parquet file that `command` wrote."""
    existing(path, f"make it first: {command}")
    try:
        return pq.read_table(path, columns=["token", "count"])
    except (pa.ArrowInvalid, OSError) as error:
        raise BadState(
            f"{path}: not the Parquet file of genpipe count: {' '.join(str(error).split())}; count again: {command}"
        ) from None


def build_vocabulary(root: Path, name: str, corpus: Corpus) -> None:
    """Write artifacts/vocabularies/NAME: vocabulary.json (index = id) and statistics.json (size, coverage)."""
    path = root / "artifacts" / "counts" / name / "counts.parquet"
    counts = read_counts(path, f"genpipe count --corpus {name}")
    kept = choose_tokens(counts, corpus.min_count, corpus.max_size)
    vocabulary = [*dict.fromkeys([UNKNOWN, *kept["token"].to_pylist(), *corpus.also])]
    total = sum(counts["count"].to_pylist())
    coverage = sum(kept["count"].to_pylist()) / total if total else 0.0
    out = root / "artifacts" / "vocabularies" / name
    refuse_inputs(out, [path])
    with new_directory(out, TABLES) as directory:
        write_json(directory / "vocabulary.json", vocabulary)
        if (path.parent / TOKENIZER_HASH).exists():
            shutil.copyfile(path.parent / TOKENIZER_HASH, directory / TOKENIZER_HASH)
        write_json(directory / "statistics.json", {"size": len(vocabulary), "coverage": coverage})
    print(f"{len(vocabulary):,} tokens have an id; they cover {100 * coverage:.2f} % of the text")
