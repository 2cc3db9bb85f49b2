"""A lossless tokenizer of bytes, learnt without labels: BytePiece (Su Jianlin, archives/9752), on the engine that counts words.

The most probable pieces of all texts under a model of n-grams of bytes are counted, and the useful ones kept: seen often
enough, not too long, not better split into others, the most frequent up to the size. What is dropped is split into what
stays, and counted there. The file is one of Hugging Face's Unigram model over bytes: any text comes back as it was.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from genpipe.corpus.counting import Counting
from genpipe.corpus.counts import Counts, counted_by
from genpipe.corpus.executors import Where, executor
from genpipe.corpus.inputs import Input
from genpipe.corpus.runs import TOKEN
from genpipe.corpus.shards import cut
from genpipe.corpus.tasks import Executor, Task
from genpipe.discovery.byte_ngrams import SCALE, train_ngrams
from genpipe.discovery.byte_segmentation import BytePieces
from genpipe.discovery.byte_windows import Numbers
from genpipe.discovery.piece_splitting import Pieces, Splitter
from genpipe.errors import BadInput
from genpipe.files import new_file, scratch_directory
from genpipe.progress import Progress, tell

NAME = "byte_piece"
MIN_COUNT = 2  # of a piece
MAX_BYTES = 36  # of a piece
SHARD_BYTES = 2 << 20
MB_PER_S = 1.0  # of text and core, all in all, about
ROWS = 1 << 16  # dropped pieces that a task splits

# The file must name a token for what no piece covers, though bytes cover everything. Text never is this one: a space
# comes to the model as another character.
UNKNOWN = "<unknown byte>"
SMALLEST = 257  # all bytes, and this


def train_byte_pieces(
    inputs: Sequence[Input],
    size: int,
    out: Path,
    *,
    scratch: Path,
    workers: int,
    where: Where,
    memory: int,
    shard_bytes: int = SHARD_BYTES,
    min_count: int = MIN_COUNT,
) -> None:
    """Learn a tokenizer of at most `size` tokens from the texts of some inputs, and write its JSON file `out`.

    N-grams that were seen less than `min_count` times are left out of the model that cuts the texts.
    """
    if size < SMALLEST:
        raise BadInput(
            f"size: must be {SMALLEST} or more, with room for all 256 bytes and an unknown token, not {size}; "
            "take a larger one"
        )
    shards = [shard for item in inputs for shard in cut(item, shard_bytes)]
    seconds = sum(shard.size for shard in shards) / 1e6 / MB_PER_S
    scratch.mkdir(parents=True, exist_ok=True)
    with scratch_directory(scratch, "pieces") as here:
        paths = [path for item in inputs if (path := item.local_path)]
        with executor(where, workers, len(shards), seconds, shared=(here, *paths)) as does:
            model = here / "model"
            model.mkdir()
            text = train_ngrams(does, shards, model, min_count=min_count, memory=memory, name=NAME)
            if not text:
                raise BadInput("there is no text to train on; name files that have some")
            counting = Counting(BytePieces(NAME, NAME, (), model), here, memory=memory)
            with counted_by(does, shards, counting, workers=workers, name=f"{NAME}, pieces") as counts:
                pieces = _useful(counts, does, here)
        pieces = _stable(pieces)
    pieces = _stable(_largest(pieces, size - SMALLEST))
    write_pieces(pieces, out)
    tell(f"{NAME}: {SMALLEST + len(pieces.texts):,} tokens from {text:,} bytes of text")


def write_pieces(pieces: Pieces, out: Path) -> None:
    """Write the tokenizer file: the unknown token, all bytes, and the pieces, the most frequent first."""
    with new_file(out) as partial:
        partial.write_text(model_of(pieces).to_str(pretty=True) + "\n", encoding="utf-8")


def model_of(pieces: Pieces) -> tokenizers.Tokenizer:
    """The Hugging Face tokenizer of some pieces; texts and bytes come to it as one printable character a byte."""
    scores, byte_scores = pieces.scores()
    letters = byte_letters()
    rows = [(UNKNOWN, 0.0)]
    rows += [(letters[byte], score / SCALE) for byte, score in enumerate(byte_scores.tolist())]
    for number in _by_rank(pieces):
        spelled = "".join(letters[byte] for byte in pieces.texts[number].encode())
        rows.append((spelled, int(scores[number]) / SCALE))
    model = tokenizers.Tokenizer(models.Unigram(rows, 0, False))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    return model


@functools.cache
def byte_letters() -> list[str]:
    """The character that stands for each byte in files of Hugging Face: printable ones of Latin-1 for themselves."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _useful(counts: Counts, does: Executor, folder: Path) -> Pieces:
    """Pieces that are frequent and short enough; the others are split into them, and counted there."""
    size = pl.col(TOKEN).str.len_bytes()
    kept = counts.rows().filter(_is_useful() & (size > 1)).collect(engine="streaming").sort(TOKEN)
    single = counts.rows().filter(size == 1).collect(engine="streaming")
    byte_counts = np.ones(256, np.int64)  # a byte that is no piece of its own has this
    if len(single):
        byte_counts[[ord(token) for token in single[TOKEN]]] = single["count"].to_numpy()
    pieces = Pieces(kept[TOKEN].to_list(), kept["count"].to_numpy().astype(np.int64), byte_counts)
    file = folder / "kept.parquet"
    kept.write_parquet(file)
    tasks = [
        Task(
            f"{NAME}: rows {start} of {part.path}",
            functools.partial(_split_dropped, part.path, start, file, byte_counts),
        )
        for part in counts.parts
        for start in range(0, part.rows, ROWS)
    ]
    more = [pieces.counts, pieces.byte_counts]
    with Progress(f"{NAME}, splitting rare pieces", len(tasks), "tasks") as progress:

        def done(number: int, found: tuple[Numbers, Numbers]) -> None:
            more[:] = [old + new for old, new in zip(more, found, strict=True)]
            progress.reach(progress.done + 1)

        does.run(tasks, done)
    return Pieces(pieces.texts, more[0], more[1])


def _is_useful() -> pl.Expr:
    size = pl.col(TOKEN).str.len_bytes()
    return (size == 1) | ((pl.col("count") >= MIN_COUNT) & (size <= MAX_BYTES))


def _split_dropped(part: Path, start: int, kept: Path, byte_counts: Numbers) -> tuple[Numbers, Numbers]:
    """How often the dropped ones among some rows of a part of the counts use the pieces that are kept."""
    rows = pl.scan_ipc(part, glob=False).slice(start, ROWS).filter(~_is_useful()).collect()
    return _splitter(kept, byte_counts.tobytes()).count(
        rows[TOKEN].to_list(), rows["count"].to_numpy().astype(np.int64)
    )


@functools.lru_cache(1)
def _splitter(kept: Path, byte_counts: bytes) -> Splitter:
    rows = pl.read_parquet(kept)
    counts = rows["count"].to_numpy().astype(np.int64)
    return Splitter(Pieces(rows[TOKEN].to_list(), counts, np.frombuffer(byte_counts, np.int64)))


def _stable(pieces: Pieces) -> Pieces:
    """Without pieces that are better split into others, which may make others so."""
    while True:
        counts, byte_counts = Splitter(pieces).count(pieces.texts, pieces.counts)
        used = np.flatnonzero(counts)
        is_stable = len(used) == len(pieces.texts)
        texts = [pieces.texts[number] for number in used]
        pieces = Pieces(texts, counts[used], byte_counts + pieces.byte_counts)
        if is_stable:
            return pieces


def _largest(pieces: Pieces, most: int) -> Pieces:
    """The most frequent pieces; the others are split into them, and counted there."""
    ranked = _by_rank(pieces)
    kept, dropped = ranked[:most], ranked[most:]
    some = Pieces([pieces.texts[number] for number in kept], pieces.counts[kept], pieces.byte_counts)
    counts, byte_counts = Splitter(some).count([pieces.texts[n] for n in dropped], pieces.counts[dropped])
    return Pieces(some.texts, some.counts + counts, some.byte_counts + byte_counts)


def _by_rank(pieces: Pieces) -> Numbers:
    """The numbers of pieces by count, the most frequent first; of equal ones the longer, then by their bytes."""
    keys = [
        (-count, -len(text.encode()), text)
        for text, count in zip(pieces.texts, pieces.counts.tolist(), strict=True)
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
