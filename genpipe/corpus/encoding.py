"""Token ids on disk: one memory-mapped array of ids a file, and where each document begins in it.

Shards are encoded one by one, by any number of processes, into pieces named by all that they depend on; the pieces
are then written one after another, in the order of the text.
"""

import contextlib
import functools
import hashlib
import itertools
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import polars as pl

from genpipe.corpus.executors import MB_PER_S, Where, executor
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import Content, Shard, cut, read
from genpipe.corpus.tasks import Away, Task
from genpipe.corpus.tokenizers import Tokenizer, corpus_tokenizer, inputs_of
from genpipe.dependencies import version_of
from genpipe.errors import BadInput
from genpipe.files import (
    TABLES,
    existing,
    new_directory,
    new_file,
    read_json,
    refuse_inputs,
    require_ours,
    scratch_directory,
    sha256,
)
from genpipe.params.cluster import Cluster
from genpipe.params.corpora import Corpus
from genpipe.progress import Progress

if TYPE_CHECKING:
    from datasets import Dataset

UINT16_TOKENS = 1 << 16  # a larger vocabulary needs four bytes an id
NO_PIECE = (
    FileNotFoundError,
    EOFError,
    ValueError,
    zipfile.BadZipFile,
)  # not encoded yet, or cut off by a power failure

Encoded = tuple[Path, np.ndarray | None, np.ndarray | None]  # without ids where the piece is there already


@dataclass(frozen=True)
class Encoder:
    """Turns tokens into ids: their places in a vocabulary, 0 where they have none."""

    tokenizer: Tokenizer
    vocabulary: Path
    vocabulary_sha256: str
    dtype: str
    scratch: Path

    def path_of(self, content: Content) -> Path:
        """Where the piece of a shard with this content lies."""
        parts = (
            self.tokenizer.version,
            self.vocabulary_sha256,
            self.dtype,
            _code_version(),
            content.digest(),
        )
        return self.scratch / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.npz"

    def known(self) -> pl.DataFrame:
        """The vocabulary: columns id and token."""
        return _known(self.vocabulary, self.vocabulary_sha256)


@dataclass(frozen=True)
class Piece:
    """A shard on disk: `ids`, 1-D, and `lengths`, the number of ids of each document."""

    path: Path
    tokens: int

    def read(self, part: Literal["ids", "lengths"]) -> np.ndarray:
        """One of its arrays."""
        with np.load(self.path) as arrays:
            return arrays[part]


def encode_corpus(root: Path, name: str, corpus: Corpus, cluster: Cluster) -> None:
    """Write artifacts/encoded/NAME: vocabulary.json and, for each file to encode, STEM.ids.npy and STEM.offsets.npy."""
    stems = [Path(file).stem for file in corpus.encode]
    if len(set(stems)) < len(stems):
        raise BadInput(
            f"corpora.{name}.encode: {', '.join(corpus.encode)} would be written to the same files; rename one"
        )
    path = root / "artifacts" / "vocabularies" / name / "vocabulary.json"
    vocabulary = read_json(existing(path, f"make it first: genpipe vocabulary {name}"))
    out = root / "artifacts" / "encoded" / name
    refuse_inputs(out, [path, *inputs_of(root, corpus)])
    require_ours(out, TABLES)
    dtype = "<u2" if len(vocabulary) <= UINT16_TOKENS else "<u4"
    scratch = root.resolve() / ".genpipe" / "encoded" / name
    scratch.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(corpus_tokenizer(root, corpus), path.resolve(), sha256(path), dtype, scratch)
    shards = {stem: _shards(root, corpus, file) for stem, file in zip(stems, corpus.encode, strict=True)}
    pieces = encode_shards(
        list(itertools.chain(*shards.values())), encoder, cluster.workers, cluster.executor, f"encode {name}"
    )
    with new_directory(out, TABLES) as directory:
        shutil.copyfile(path, directory / "vocabulary.json")
        ordered = iter(pieces)
        for stem, mine in shards.items():
            _join(list(itertools.islice(ordered, len(mine))), directory, stem, dtype)
    for piece in pieces:
        piece.path.unlink(missing_ok=True)


def _shards(root: Path, corpus: Corpus, file: str) -> list[Shard]:
    source = root / "artifacts" / "datasets" / corpus.dataset / file
    existing(source, f"make it first: genpipe prepare {corpus.dataset}")
    return [
        s for item in find_inputs([str(source)], field=corpus.field) for s in cut(item, corpus.shard_bytes)
    ]


def encode_shards(
    shards: Sequence[Shard], encoder: Encoder, workers: int, where: Where, name: str
) -> list[Piece]:
    """The pieces of all shards, in their order."""
    megabytes = sum(shard.size for shard in shards) / 1e6
    tasks = [
        Task(
            str(shard),
            functools.partial(encode_shard, shard, encoder),
            Away(functools.partial(_pack_shard, shard, encoder), _keep_piece),
        )
        for shard in shards
    ]
    seconds = megabytes / MB_PER_S[encoder.tokenizer.name]
    with (
        scratch_directory(encoder.scratch, "here") as here,
        executor(
            where,
            workers,
            len(tasks),
            seconds,
            threads=encoder.tokenizer.on_threads,
            shared=(
                here,
                encoder.vocabulary,
                *{path for shard in shards if (path := shard.input.local_path)},
            ),
        ) as does,
        Progress(name, megabytes, "MB") as progress,
    ):
        tokens = 0

        def done(number: int, piece: Piece) -> None:
            nonlocal tokens
            tokens += piece.tokens
            progress.reach(progress.done + shards[number].size / 1e6, f"{tokens:,} tokens")

        return does.run(tasks, done)


def encode_shard(shard: Shard, encoder: Encoder) -> Piece:
    """The piece of a shard: the file of an interrupted run, or a new one."""
    content = read(shard)
    path = encoder.path_of(content)
    with contextlib.suppress(*NO_PIECE):
        return _open_piece(path)
    return _keep_piece(_encoded(path, content, encoder.tokenizer, encoder.dtype, encoder.known()))


def _pack_shard(shard: Shard, encoder: Encoder) -> Callable[[], Encoded]:
    content = read(shard)
    path = encoder.path_of(content)
    with contextlib.suppress(*NO_PIECE):
        _open_piece(path)
        return functools.partial(tuple, (path, None, None))
    return functools.partial(_encoded, path, content, encoder.tokenizer, encoder.dtype, encoder.known())


def _encoded(path: Path, content: Content, tokenizer: Tokenizer, dtype: str, known: pl.DataFrame) -> Encoded:
    """Where the piece is to lie, its ids, and how many each document has."""
    ids, lengths = [np.zeros(0, dtype)], [np.zeros(0, np.int64)]
    for texts in content.blocks(tokenizer.block):
        tokens = tokenizer.explode(texts).collect(engine="streaming")
        ids.append(_numbers(tokens["token"], known).astype(dtype))
        lengths.append(np.bincount(tokens["document"].to_numpy(), minlength=len(texts)))
    return path, np.concatenate(ids), np.concatenate(lengths)


def _numbers(tokens: pl.Series, known: pl.DataFrame) -> np.ndarray:
    """The id of each token; looked up once for each type, in whichever of the two tables is the smaller one."""
    coded = tokens.to_arrow().dictionary_encode()
    types = pl.Series("token", coded.dictionary, dtype=pl.String).to_frame().with_row_index("code")
    found = known.lazy().join(types.lazy(), on="token").collect(engine="streaming")
    numbers = np.zeros(len(types), np.uint32)
    numbers[found["code"].to_numpy()] = found["id"].to_numpy()
    return numbers[coded.indices.to_numpy()]


def _keep_piece(encoded: Encoded) -> Piece:
    path, ids, lengths = encoded
    if ids is None or lengths is None:
        return _open_piece(path)
    with new_file(path) as partial, partial.open("wb") as file:
        np.savez(file, ids=ids, lengths=lengths)
    return Piece(path, len(ids))


def _open_piece(path: Path) -> Piece:
    return Piece(path, int(Piece(path, 0).read("lengths").sum()))


@functools.lru_cache(maxsize=2)
def _known(path: Path, _sha256: str) -> pl.DataFrame:
    return pl.DataFrame({"token": read_json(path)}).with_row_index("id")


def _join(pieces: Sequence[Piece], directory: Path, stem: str, dtype: str) -> None:
    """Write the pieces of a file one after another."""
    with _growing_array(directory / f"{stem}.ids.npy", np.dtype(dtype)) as append:
        for piece in pieces:
            append(piece.read("ids"))
    lengths = np.concatenate([np.zeros(1, np.int64), *(piece.read("lengths") for piece in pieces)])
    np.save(directory / f"{stem}.offsets.npy", lengths.cumsum().astype("<i8"))


def read_encoded(directory: Path, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The vocabulary, the ids [tokens] and the offsets [documents + 1] of `split`, the arrays mapped from disk.

    Document d is `ids[offsets[d] : offsets[d + 1]]`.
    """
    remedy = f"make it first: genpipe encode {directory.name}"
    arrays = [existing(directory / f"{split}.{part}.npy", remedy) for part in ("ids", "offsets")]
    ids, offsets = (np.load(path, mmap_mode="r") for path in arrays)
    return read_json(existing(directory / "vocabulary.json", remedy)), ids, offsets


def as_dataset(directory: Path, split: str) -> "Dataset":
    """The documents of `split` as a Hugging Face data set with the column `ids`; nothing is copied."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable  # of arrays that are mapped from disk

    _, ids, offsets = read_encoded(directory, split)
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(ids))
    return Dataset(InMemoryTable(pa.table({"ids": column})))


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


@functools.cache
def _code_version() -> str:
    return version_of("corpus.encoding")
