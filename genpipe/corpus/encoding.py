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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import polars as pl

from genpipe.codec_files import read_vocabulary, special_facts
from genpipe.corpus.codec import write_codec
from genpipe.corpus.executors import MB_PER_S, Where, executor
from genpipe.corpus.fields import Marks, write_items
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import Content, Shard, cut, read
from genpipe.corpus.tasks import Away, Task
from genpipe.corpus.tokenizers import Tokenizer, corpus_tokenizer, inputs_of, tokenizer
from genpipe.corpus.words import require_characters, word_starts
from genpipe.dependencies import version_of
from genpipe.errors import BadInput
from genpipe.files import (
    TABLES,
    existing,
    new_directory,
    new_file,
    read_description,
    read_json,
    refuse_inputs,
    require_ours,
    scratch_directory,
    sha256,
    write_json,
)
from genpipe.params.cluster import Cluster
from genpipe.params.corpora import Corpus
from genpipe.params.encodings import Encoding
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

Encoded = tuple[Path, dict[str, np.ndarray]]  # without arrays where the piece is there already


@dataclass(frozen=True)
class Encoder:
    """Turns tokens into ids: their places in a vocabulary, 0 where they have none."""

    tokenizer: Tokenizer
    vocabulary: Path
    vocabulary_sha256: str
    dtype: str
    scratch: Path
    words: Tokenizer | None = None  # whose words are marked among the tokens

    def path_of(self, content: Content) -> Path:
        """Where the piece of a shard with this content lies."""
        parts = (
            self.tokenizer.version,
            self.vocabulary_sha256,
            self.dtype,
            _code_version(),
            content.digest(),
            *([self.words.version] if self.words else []),
        )
        return self.scratch / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.npz"

    def known(self) -> pl.DataFrame:
        """The vocabulary: columns id and token."""
        return _known(self.vocabulary, self.vocabulary_sha256)


@dataclass(frozen=True)
class Piece:
    """A shard on disk: `ids`, 1-D, `lengths`, the number of ids of each document, and `words`, where words begin, if asked for."""

    path: Path
    tokens: int

    def read(self, part: Literal["ids", "lengths", "words"]) -> np.ndarray:
        """One of its arrays."""
        with np.load(self.path) as arrays:
            return arrays[part]


@dataclass(frozen=True)
class Source:
    """Texts of one field of one split: a file, and the field of its records."""

    split: str
    name: str
    path: Path
    field: str

    @property
    def stem(self) -> str:
        """What the files of its ids begin with."""
        return f"{self.split}.{self.name}"


CHUNK = 1 << 24  # ids that are looked at at once
LISTS = ("passages", "answer")  # fields with several texts a record
MARKS = {"group": "num_groups", "label": "num_classes", "tags": "num_tags"}  # and the fact that counts them


def encode(root: Path, name: str, encoding: Encoding, corpus: Corpus, cluster: Cluster) -> None:
    """Write artifacts/encoded/NAME: data.json, the codec, and of each text field SPLIT.FIELD.ids.npy and .offsets.npy."""
    path = root / "artifacts" / "vocabularies" / encoding.corpus / "vocabulary.json"
    vocabulary = read_vocabulary(path.parent, f"make it first: genpipe vocabulary {encoding.corpus}")
    dataset = root / "artifacts" / "datasets" / encoding.dataset
    files = _files_of_splits(dataset)
    carried = [_carried(dataset / file, f"encodings.{name}.carry names it") for file in encoding.carry]
    out = root / "artifacts" / "encoded" / name
    refuse_inputs(out, [path, dataset, *inputs_of(root, corpus)])
    require_ours(out, TABLES)
    dtype = "<u2" if len(vocabulary) <= UINT16_TOKENS else "<u4"
    scratch = root.resolve() / ".genpipe" / "encoded" / name
    scratch.mkdir(parents=True, exist_ok=True)
    words = _words(encoding, corpus, f"encodings.{name}.words")
    encoder = Encoder(corpus_tokenizer(root, corpus), path.resolve(), sha256(path), dtype, scratch, words)
    with new_directory(out, TABLES) as directory, scratch_directory(scratch, "items") as items:
        sources = list(_sources(files, encoding, items, directory))
        shards = [_shards(source, corpus) for source in sources]
        where = cluster.executor_of(f"encode@{name}")
        pieces = encode_shards(
            list(itertools.chain(*shards)), encoder, cluster.workers, where, f"encode {name}"
        )
        ordered = iter(pieces)
        for source, mine in zip(sources, shards, strict=True):
            _join(
                list(itertools.islice(ordered, len(mine))), directory, source.stem, dtype, words is not None
            )
        write_codec(directory, root, corpus, path)
        for file in carried:
            shutil.copyfile(file, directory / file.name)
        facts = special_facts(len(vocabulary)) | _facts(files, encoding, sources, directory)
        write_json(directory / "data.json", {"kind": encoding.kind, "splits": list(files), "facts": facts})
    print("\n".join(_summary(out, source.stem) for source in sources))
    for piece in pieces:
        piece.path.unlink(missing_ok=True)


def _summary(directory: Path, stem: str) -> str:
    """How many ids the texts of a file have, and how many of them stand for tokens that the vocabulary lacks."""
    ids = np.load(directory / f"{stem}.ids.npy", mmap_mode="r")
    unknown = sum(int(np.count_nonzero(ids[i : i + CHUNK] == 0)) for i in range(0, len(ids), CHUNK))
    return f"{len(ids):>12,} ids of {stem}, {100 * unknown / max(1, len(ids)):.2f} % of them unknown"


def _words(encoding: Encoding, corpus: Corpus, where: str) -> Tokenizer | None:
    """The tokenizer whose words are marked, where one is."""
    if encoding.words is None:
        return None
    require_characters(corpus.tokenizer, where)
    return tokenizer(encoding.words.tokenizer, normalise=encoding.words.normalise)


def _files_of_splits(dataset: Path) -> dict[str, Path]:
    remedy = f"make it first: genpipe prepare {dataset.name}"
    described = read_description(dataset, remedy)
    if described["kind"] != "text":
        raise BadInput(
            f"{dataset}: data of the kind {described['kind']} is not text, which is what can be encoded"
        )
    return {split: existing(dataset / f"{split}.jsonl", remedy) for split in described["splits"]}


def _carried(path: Path, remedy: str) -> Path:
    if existing(path, remedy).is_dir():
        raise BadInput(f"{path}: a directory, and only files are carried; {remedy}")
    return path


def _sources(files: Mapping[str, Path], encoding: Encoding, items: Path, directory: Path) -> Iterator[Source]:
    """The texts to encode; a list of texts becomes a file with a record for each, and SPLIT.FIELD.items.npy."""
    for split, path in files.items():
        for name, field in sorted(encoding.fields.items()):
            if name in LISTS:
                own = items / f"{split}.{name}.jsonl"
                np.save(
                    directory / f"{split}.{name}.items.npy",
                    write_items(path, field, own, may_be_empty=name == "answer"),
                )
                yield Source(split, name, own, field)
            elif name not in MARKS:
                yield Source(split, name, path, field)


def _facts(
    files: Mapping[str, Path], encoding: Encoding, sources: Sequence[Source], directory: Path
) -> dict[str, Any]:
    """What the texts and their marks say about the data; marks are written. Raises BadInput where a text is empty."""
    lengths = {source.stem: np.diff(np.load(directory / f"{source.stem}.offsets.npy")) for source in sources}
    facts: dict[str, Any] = {}
    if encoding.kind != "stream":
        for source in sources:
            if source.name != "answer":  # a question may have none
                _require_tokens(source, lengths[source.stem])
        facts["max_length"] = int(max(max(rows, default=0) for rows in lengths.values()))
    for name in sorted(set(encoding.fields) & set(MARKS)):
        marks = Marks(files, encoding.fields[name], per_token=name == "tags")
        if name != "group":
            marks.require_trained()
        for split in files:
            if name == "tags":
                marks.require_lengths(split, lengths[f"{split}.text"])
            np.save(directory / f"{split}.{name}.npy", marks.numbers(split))
        write_json(directory / "classes.json", marks.names)
        facts[MARKS[name]] = marks.num_known
        if name != "group":
            facts["classes"] = marks.names
    if encoding.conditions:
        facts["conditions"] = _write_conditions(files, encoding.conditions, directory)
    return facts


def _write_conditions(
    files: Mapping[str, Path], conditions: Mapping[str, str], directory: Path
) -> dict[str, list[str]]:
    """SPLIT.NAME.npy, the number of each text's class, for each condition; the names of its classes."""
    names: dict[str, list[str]] = {}
    for name, field in sorted(conditions.items()):
        marks = Marks(files, field, per_token=False)
        marks.require_trained()
        for split in files:
            np.save(directory / f"{split}.{name}.npy", marks.numbers(split))
        names[name] = marks.names
    return names


def _require_tokens(source: Source, lengths: np.ndarray) -> None:
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise BadInput(
            f"{source.path.name}: text {empty[0] + 1} of the field {source.field!r} has no token; "
            "take empty texts out of the data set, or choose another tokenizer"
        )


def _shards(source: Source, corpus: Corpus) -> list[Shard]:
    inputs = find_inputs([str(source.path)], field=source.field)
    return [shard for item in inputs for shard in cut(item, corpus.shard_bytes)]


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
    return _keep_piece(
        _encoded(path, content, encoder.tokenizer, encoder.dtype, encoder.known(), encoder.words)
    )


def _pack_shard(shard: Shard, encoder: Encoder) -> Callable[[], Encoded]:
    content = read(shard)
    path = encoder.path_of(content)
    with contextlib.suppress(*NO_PIECE):
        _open_piece(path)
        return functools.partial(tuple, (path, {}))
    return functools.partial(
        _encoded, path, content, encoder.tokenizer, encoder.dtype, encoder.known(), encoder.words
    )


def _encoded(
    path: Path, content: Content, cuts: Tokenizer, dtype: str, known: pl.DataFrame, words: Tokenizer | None
) -> Encoded:
    """Where the piece is to lie, its ids, how many each document has, and where words begin."""
    ids, lengths, starts = [np.zeros(0, dtype)], [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
    for texts in content.blocks(cuts.block):
        tokens = cuts.explode(texts).collect(engine="streaming")
        ids.append(_numbers(tokens["token"], known).astype(dtype))
        lengths.append(np.bincount(tokens["document"].to_numpy(), minlength=len(texts)))
        if words:
            starts.append(word_starts(tokens, words.explode(texts).collect(engine="streaming"), len(texts)))
    parts = {"ids": np.concatenate(ids), "lengths": np.concatenate(lengths)}
    return path, parts | ({"words": np.concatenate(starts)} if words else {})


def _numbers(tokens: pl.Series, known: pl.DataFrame) -> np.ndarray:
    """The id of each token; looked up once for each type, in whichever of the two tables is the smaller one."""
    coded = tokens.to_arrow().dictionary_encode()
    types = pl.Series("token", coded.dictionary, dtype=pl.String).to_frame().with_row_index("code")
    found = known.lazy().join(types.lazy(), on="token").collect(engine="streaming")
    numbers = np.zeros(len(types), np.uint32)
    numbers[found["code"].to_numpy()] = found["id"].to_numpy()
    return numbers[coded.indices.to_numpy()]


def _keep_piece(encoded: Encoded) -> Piece:
    path, parts = encoded
    if not parts:
        return _open_piece(path)
    with new_file(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **parts)
    return Piece(path, len(parts["ids"]))


def _open_piece(path: Path) -> Piece:
    return Piece(path, int(Piece(path, 0).read("lengths").sum()))


@functools.lru_cache(maxsize=2)
def _known(path: Path, _sha256: str) -> pl.DataFrame:
    return pl.DataFrame({"token": read_json(path)}).with_row_index("id")


def _join(pieces: Sequence[Piece], directory: Path, stem: str, dtype: str, with_words: bool) -> None:
    """Write the pieces of a file one after another."""
    parts: tuple[tuple[Literal["ids", "words"], str], ...] = (("ids", dtype), ("words", "u1"))
    for part, kind in parts[: 1 + with_words]:
        with _growing_array(directory / f"{stem}.{part}.npy", np.dtype(kind)) as append:
            for piece in pieces:
                append(piece.read(part))
    lengths = np.concatenate([np.zeros(1, np.int64), *(piece.read("lengths") for piece in pieces)])
    np.save(directory / f"{stem}.offsets.npy", lengths.cumsum().astype("<i8"))


def read_encoded(
    directory: Path, split: str, field: str = "text"
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The vocabulary, the ids [tokens] and the offsets [documents + 1] of a field of `split`, the arrays mapped from disk.

    Document d is `ids[offsets[d] : offsets[d + 1]]`.
    """
    remedy = f"make it first: genpipe encode {directory.name}"
    arrays = [existing(directory / f"{split}.{field}.{part}.npy", remedy) for part in ("ids", "offsets")]
    ids, offsets = (np.load(path, mmap_mode="r") for path in arrays)
    return [*read_vocabulary(directory, remedy)], ids, offsets


def as_dataset(directory: Path, split: str, field: str = "text") -> "Dataset":
    """The documents of `split` as a Hugging Face data set with the column `ids`; nothing is copied."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable  # of arrays that are mapped from disk

    _, ids, offsets = read_encoded(directory, split, field)
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
