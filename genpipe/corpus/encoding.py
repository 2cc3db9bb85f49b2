"""Token ids on disk: one memory-mapped array of ids a file, and where each document begins in it."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from genpipe.corpus.shards import cut, documents, read
from genpipe.corpus.tokenizers import Tokenizer, corpus_tokenizer
from genpipe.errors import BadInput
from genpipe.files import existing, new_directory, read_json
from genpipe.params.corpora import Corpus
from genpipe.progress import Progress

UINT16_TOKENS = 1 << 16  # a larger vocabulary needs four bytes an id


def encode_corpus(root: Path, name: str, corpus: Corpus) -> None:
    """Write artifacts/encoded/NAME: vocabulary.json and, for each file to encode, STEM.ids.npy and STEM.offsets.npy."""
    stems = [Path(file).stem for file in corpus.encode]
    if len(set(stems)) < len(stems):
        raise BadInput(
            f"corpora.{name}.encode: {', '.join(corpus.encode)} would be written to the same files; rename one"
        )
    path = root / "artifacts" / "vocabularies" / name / "vocabulary.json"
    vocabulary = read_json(existing(path, f"make it first: genpipe vocabulary {name}"))
    tokenizer = corpus_tokenizer(root, corpus)
    with new_directory(root / "artifacts" / "encoded" / name) as directory:
        shutil.copyfile(path, directory / "vocabulary.json")
        for file in corpus.encode:
            source = root / "artifacts" / "datasets" / corpus.dataset / file
            existing(source, f"make it first: genpipe prepare {corpus.dataset}")
            encode_file(source, vocabulary, corpus, tokenizer, directory, f"encode {name}/{file}")


def encode_file(
    source: Path, vocabulary: list[str], corpus: Corpus, tokenizer: Tokenizer, directory: Path, name: str
) -> None:
    """Write the ids of one file's documents (1-D; a token that has none is 0) and their offsets ([documents + 1])."""
    number = {token: index for index, token in enumerate(vocabulary)}
    dtype = np.dtype("<u2" if len(vocabulary) <= UINT16_TOKENS else "<u4")
    shards = cut(source, corpus.shard_bytes)
    offsets = [0]
    with (
        _growing_array(directory / f"{source.stem}.ids.npy", dtype) as append,
        Progress(name, sum(shard.size for shard in shards) / 1e6, "MB") as progress,
    ):
        for shard in shards:
            texts = list(documents(shard, read(shard), corpus.field))
            for tokens in tokenizer.split_all(texts):
                ids = [number.get(token, 0) for token in tokens]
                append(np.array(ids, dtype))
                offsets.append(offsets[-1] + len(ids))
            progress.reach(progress.done + shard.size / 1e6, f"{offsets[-1]:,} tokens")
    np.save(directory / f"{source.stem}.offsets.npy", np.array(offsets, "<i8"))


def read_encoded(directory: Path, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The vocabulary, the ids [tokens] and the offsets [documents + 1] of `split`, the arrays mapped from disk.

    Document d is `ids[offsets[d] : offsets[d + 1]]`.
    """
    remedy = f"make it first: genpipe encode {directory.name}"
    arrays = [existing(directory / f"{split}.{part}.npy", remedy) for part in ("ids", "offsets")]
    ids, offsets = (np.load(path, mmap_mode="r") for path in arrays)
    return read_json(existing(directory / "vocabulary.json", remedy)), ids, offsets


@contextlib.contextmanager
def _growing_array(path: Path, dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """A .npy file of one dimension that is written piece by piece: the bytes that np.save of the whole would give."""
    length = 0
    with path.open("wb") as file:

        def append(piece: np.ndarray) -> None:
            nonlocal length
            length += len(piece)
            file.write(piece.tobytes())

        _write_header(file, dtype, 0)
        yield append
        file.seek(0)
        _write_header(file, dtype, length)  # as long as the first one: NumPy leaves room for any length


def _write_header(file: BinaryIO, dtype: np.dtype, length: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)
