"""Sentences of files or of standard input, each once, and their vectors by a trained model.

Sentences of one length are embedded together, always as many at once: the bits of a vector are a function of its sentence and the model, so
vectors that are known already are kept.
"""

import contextlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Embeds
from genpipe.corpus.codec import UNKNOWN
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import cut, read
from genpipe.data.texts import padded
from genpipe.errors import BadInput
from genpipe.progress import Progress
from genpipe.using.model import Using, require

ROWS = 32  # embedded at once; fixed, since the size of a matrix product may change its last bits
STEP = 4  # lengths are rounded up to a multiple of it, which padding changes nothing of
SPLIT_AT_ONCE = 10_000  # sentences that are tokenized at once
SHARD_BYTES = 16 << 20


@dataclass(frozen=True)
class Embedded:
    """Distinct sentences in the order of their first appearance, and their vectors of length 1, float32 [sentences, dim]."""

    sentences: list[str]
    vectors: Tensor
    read: int  # lines that are not blank
    unknown: int  # sentences of which the model knows no token: they have no vector
    shortened: int  # sentences that are longer than what the model reads: the rest of them has no effect


def lines_of(names: Sequence[str], field: str = "text") -> Iterator[str]:
    """The lines, records or rows of files as `genpipe count` reads them, without white space around; of standard input where none is named.

    Blank ones are left out. Raises BadInput where a file is missing or cannot be read.
    """
    for text in _texts(names, field) if names else _of_standard_input():
        line = text.strip()
        if line:
            yield line


def _texts(names: Sequence[str], field: str) -> Iterator[str]:
    for found in find_inputs(names, field=field):
        for shard in cut(found, SHARD_BYTES):
            yield from read(shard).documents()


def _of_standard_input() -> Iterator[str]:
    try:
        yield from sys.stdin.buffer.read().decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"standard input: not valid UTF-8 at byte {error.start}; convert it first") from None


def embedded(using: Using, lines: Iterable[str], known: Mapping[str, Tensor]) -> Embedded:
    """The distinct sentences among `lines` and their vectors; `known` has vectors that this model has made before.

    Raises BadInput where the model has no features or reads no text, and where no sentence has a token that it knows.
    """
    require(using, "has no features of texts", Embeds)
    counted: dict[str, int] = defaultdict(int)
    for line in lines:
        counted[line] += 1
    sentences = list(counted)
    if not sentences:
        raise BadInput(
            "there is no sentence; name files with a sentence a line, or give them on standard input"
        )
    most = most_tokens(using)
    new = [text for text in sentences if text not in known]
    ids = dict(zip(new, ids_of_all(using, new), strict=True))
    readable = {text: row[:most] for text, row in ids.items() if any(row[:most])}
    found = {**known, **_vectors(using, readable)}
    kept = [text for text in sentences if text in found]
    if not kept:
        raise BadInput(
            f"{sentences[0][:40]!r}, and all others: no token of it is in the vocabulary; give text like that of the corpus"
        )
    return Embedded(
        kept,
        torch.stack([found[text] for text in kept]),
        sum(counted.values()),
        len(sentences) - len(kept),
        _num_longer(using, kept, ids, most),
    )


def _num_longer(using: Using, kept: list[str], ids: Mapping[str, list[int]], most: int | None) -> int:
    """How many sentences have more tokens than the model reads."""
    if most is None:
        return 0
    known = [text for text in kept if text not in ids]
    return sum(len(row) > most for row in [*ids.values(), *ids_of_all(using, known)])


def most_tokens(using: Using) -> int | None:
    """How many tokens the model reads at once; None: any number."""
    bert = getattr(using.recipe, "bert", None)
    return None if bert is None else int(bert.max_length)


def ids_of_all(using: Using, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, 0 for tokens that the vocabulary lacks; many texts at once, for a tokenizer takes time to begin."""
    codec = using.text()
    numbers = {token: number for number, token in enumerate(codec.vocabulary)}
    parts = (texts[start : start + SPLIT_AT_ONCE] for start in range(0, len(texts), SPLIT_AT_ONCE))
    split = (tokens for part in parts for tokens in codec.tokenizer.split_all(part))
    return [[numbers.get(token, UNKNOWN) for token in tokens] for tokens in split]


def vectors_of(using: Using, texts: Sequence[str]) -> Tensor:
    """The vectors of some texts, float32 [texts, dim]. Raises BadInput for a text of which the model knows no token."""
    most = most_tokens(using)
    ids = {text: row[:most] for text, row in zip(texts, ids_of_all(using, texts), strict=True)}
    for text, row in ids.items():
        if not any(row):
            raise BadInput(
                f"{text[:40]!r}: no token of it is in the vocabulary; give text like that of the corpus"
            )
    found = _vectors(using, ids, quiet=True)
    return torch.stack([found[text] for text in texts])


def _vectors(using: Using, ids: Mapping[str, list[int]], quiet: bool = False) -> dict[str, Tensor]:
    """The vector of each text, float32 [dim], in batches of one length."""
    most = most_tokens(using)
    by_time: dict[int, list[str]] = defaultdict(list)
    for text, row in ids.items():
        time = -(-len(row) // STEP) * STEP
        by_time[time if most is None else min(time, most)].append(text)
    found: dict[str, Tensor] = {}
    batches = [
        (time, texts[start : start + ROWS])
        for time, texts in sorted(by_time.items())
        for start in range(0, len(texts), ROWS)
    ]
    # a batch takes as long as it has tokens
    tokens = sum(time * ROWS for time, _ in batches)
    shown = contextlib.nullcontext() if quiet or not batches else Progress("embed", tokens, "tokens")
    with shown as progress:
        for time, texts in batches:
            found.update(zip(texts, _batch(using, [ids[text] for text in texts], time), strict=True))
            if progress:
                progress.reach(progress.done + time * ROWS, f"{len(found):,} sentences")
    return found


def _batch(using: Using, rows: list[list[int]], time: int) -> Tensor:
    """Vectors of at most ROWS texts, float32 [texts, dim]: the first one again stands in for those that are missing."""
    pad = using.text().pad
    filled = [np.array(row, np.int64) for row in [*rows, *[rows[0]] * (ROWS - len(rows))]]
    ids, lengths = padded(filled, pad)
    ids = F.pad(ids, (0, time - ids.shape[1]), value=pad)
    with torch.no_grad():
        features = using.recipe.embed({"ids": ids, "lengths": lengths})
    return F.normalize(features.float())[: len(rows)]
