"""Words by a trained tagger: the `crf_tagger` of genpipe/models, computed with NumPy, so that counting loads no torch.

Each run of characters without white space between them is tagged by itself, many at once. How a library adds up a product of matrices depends
on its size, on the place of a row in it and on the processor; here all sums are exact, since weights and values are rounded to few enough bits. So the words of a
text depend on nothing but the text and the tagger. The tags are the best path of Viterbi (*Error Bounds for Convolutional Codes*, 1967).
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from genpipe.codec_files import read_about, read_vocabulary
from genpipe.corpus.normalisation import normaliser
from genpipe.corpus.word_tags import OF_WORDS, are_of_words, spans
from genpipe.errors import BadInput, BadState
from genpipe.files import WEIGHTS, read_json

UNKNOWN = 0  # id of <unk>
FOLLOWING = {"B": "ME", "M": "ME", "E": "BS", "S": "BS"}
FORBIDDEN = -1e4  # the score of a tag that may not follow
PRIME = 1_000_003  # of the hash of pairs of characters
ROWS = 512  # characters whose scores are computed at once; no result depends on it
NOTHING = -1  # in place of an id: a row without a character
REMEDY = "name the folder of a trained crf_tagger, as artifacts/models/crf_tagger"

# Values are multiples of FINE, at most MOST: 23 bits. Weights have as many bits as make the sum of a row's products 52 bits or fewer, so that it is
# exact in double precision, in whatever order a library adds.
FINE, MOST = 2.0**-14, 2.0**9
VALUE_BITS, SUM_BITS = 23, 52
FINEST = 2.0**-31  # of the scores of transitions
ROUND = 1.5 * 2.0**38  # numbers of this size are multiples of FINE: adding and subtracting it rounds to them
STEEP = 12.0

Array = np.ndarray
Layer = tuple[Array, Array]
Weights = Mapping[str, Array]


class Definition(NamedTuple):
    """What a tagger is: its weights as safetensors, and the rest as JSON."""

    weights: bytes
    about: str  # vocabulary, classes, normalise

    @property
    def sha256(self) -> str:
        """A hash of both."""
        return hashlib.sha256(self.about.encode() + b"\0" + self.weights).hexdigest()


def read_definition(folder: Path) -> Definition:
    """The tagger in a folder that `genpipe train` wrote.

    Raises BadInput where the folder is no model, or one that does not cut text into words; BadState where a file is missing or damaged.
    """
    card, data = (_object(folder / name) for name in ("recipe.json", "data.json"))
    if card.get("model") != "crf_tagger":
        raise BadInput(f"{folder}: a model {card.get('model')}, and words come from a crf_tagger; {REMEDY}")
    facts = data.get("facts")
    classes = facts.get("classes") if isinstance(facts, dict) else None
    if not isinstance(classes, list) or not are_of_words([*map(str, classes)]):
        raise BadInput(
            f"{folder}: its tags are {classes}, and words are marked by {', '.join(OF_WORDS)}; take a tagger that was trained on words"
        )
    again = "train the model again"
    codec, vocabulary = read_about(folder, again), read_vocabulary(folder, again)
    if codec.tokenizer != "char":
        raise BadInput(
            f"{folder}: it tags tokens of the tokenizer {codec.tokenizer}, and words are made of characters; "
            "take a tagger whose corpus has the tokenizer char"
        )
    about = {"vocabulary": vocabulary, "classes": classes, "normalise": codec.normalise}
    definition = Definition(_bytes(folder / WEIGHTS), json.dumps(about, ensure_ascii=False))
    Tagger(definition, str(folder))  # complains here
    return definition


class Tagger:
    """Cuts texts into words."""

    def __init__(self, definition: Definition, where: str = "the tagger") -> None:
        """Raises BadState, begun with `where`, where the weights are not those of such a model."""
        about = json.loads(definition.about)
        self._normalise = normaliser(about["normalise"])
        self._ids = {token: number for number, token in enumerate(about["vocabulary"])}
        self._classes: list[str] = about["classes"]
        try:
            self._set(load(definition.weights))
        except (SafetensorError, KeyError, ValueError) as error:
            raise BadState(
                f"{where}: {WEIGHTS} has not the weights of a crf_tagger without train.normalisations: {error}; train it again"
            ) from None

    def _set(self, weights: Weights) -> None:
        self._tokens, self._pairs = (
            _rounded(weights[f"{name}.weight"].astype(np.float64)) for name in ("tokens", "pairs")
        )
        self._join = _matrix(weights["join.weight"].T, weights["join.bias"])
        names = {name.split(".")[1] for name in weights if name.startswith("layers.")}
        kernels = [f"layers.{name}.conv" for name in sorted(names, key=int)]
        # [outputs, inputs, 3] as a matrix for the values before, at and after a character, one behind another
        self._layers = [
            _matrix(np.concatenate(weights[f"{name}.weight"].transpose(2, 1, 0)), weights[f"{name}.bias"])
            for name in kernels
        ]
        self._emissions = _matrix(weights["emissions.weight"].T, weights["emissions.bias"])
        self._start, self._end = (_on_grid(weights[f"chain.{name}"], FINEST) for name in ("start", "end"))
        allowed = [[second in FOLLOWING[first] for second in self._classes] for first in self._classes]
        self._steps = np.where(allowed, _on_grid(weights["chain.transitions"], FINEST), FORBIDDEN)

    def split_all(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text, in its order; white space ends a word and is dropped."""
        runs = [self._normalise(text).split() for text in texts]
        tags = iter(self.tags([run for of_text in runs for run in of_text]))
        return [[word for run in of_text for word in self._words(run, next(tags))] for of_text in runs]

    def _words(self, run: str, numbers: Sequence[int]) -> list[str]:
        tags = [self._classes[number] for number in numbers]
        return [run[start:end] for start, end in spans(tags)]

    def tags(self, runs: Sequence[str]) -> list[list[int]]:
        """The number of the tag of each character of each run; a run has one character or more, and no white space."""
        return [self._best(scores) for scores in self.scores(runs)]

    def scores(self, runs: Sequence[str]) -> list[Array]:
        """What the network says of each tag of each character, float64 [characters, tags] for each run."""
        parts: list[list[Array]] = [[] for _ in runs]
        for pieces in _packed([len(run) for run in runs], len(self._layers)):
            ids, pairs = np.full((2, ROWS), NOTHING)
            for piece in pieces:
                ids[piece.rows], pairs[piece.rows] = (
                    array[piece.seen] for array in self._read(runs[piece.run])
                )
            found = self._scores(ids, pairs)
            for piece in pieces:
                parts[piece.run].append(found[piece.rows][piece.kept])
        return [np.concatenate(of_run) for of_run in parts]

    def _read(self, run: str) -> tuple[Array, Array]:
        """The ids of the characters of a run, and those of each with the one before it, int64 [characters]."""
        ids = np.array([self._ids.get(character, UNKNOWN) for character in run], np.int64)
        return ids, (np.concatenate([[0], ids[:-1]]) * PRIME + ids) % len(self._pairs)

    def _scores(self, ids: Array, pairs: Array) -> Array:
        """Scores of ROWS rows, [ROWS, tags]; those without a character are zeros to their neighbours, as the ends of a text are."""
        own = (ids != NOTHING)[:, np.newaxis]
        hidden = (
            _rounded(_product(np.concatenate([self._tokens[ids], self._pairs[pairs]], 1), self._join)) * own
        )
        for layer in self._layers:
            none = np.zeros_like(hidden[:1])
            around = [np.concatenate([none, hidden[:-1]]), hidden, np.concatenate([hidden[1:], none])]
            gate, new = np.split(_rounded(_product(np.concatenate(around, 1), layer)), 2, axis=1)
            hidden -= new
            hidden *= _sigmoid(gate)
            hidden += new
            hidden = _rounded(hidden) * own
        return _product(hidden, self._emissions)

    def _best(self, scores: Array) -> list[int]:
        """The tags of the best path through scores, [characters, tags]; of equal ones that with the first tag, seen from the end."""
        best = self._start + scores[0]
        before = np.zeros(scores.shape, np.int64)
        for place in range(1, len(scores)):
            total = best[:, np.newaxis] + self._steps
            before[place] = total.argmax(0)
            best = total.max(0) + scores[place]
            best -= best.max()  # so that sums stay exact, however long the text is
        tags = [int((best + self._end).argmax())]
        for place in range(len(scores) - 1, 0, -1):
            tags.append(int(before[place, tags[-1]]))
        return tags[::-1]


class Piece(NamedTuple):
    """A part of a run among the rows of a block."""

    run: int
    seen: slice  # of the run: the part, and as many characters around it as the network looks at
    rows: slice  # of the block, for those
    kept: slice  # of those: the part


def _packed(lengths: Sequence[int], reach: int) -> Iterator[list[Piece]]:
    """Blocks of ROWS rows with all runs of these lengths, in their order; a row is free after each."""
    block: list[Piece] = []
    free = 0
    for run, length in enumerate(lengths):
        start = 0
        while start < length:
            first = max(0, start - reach)
            end = min(length, first + ROWS - 2 * reach)
            seen = slice(first, min(length, end + reach))
            size = seen.stop - first
            if free + size > ROWS:
                yield block
                block, free = [], 0
            block.append(Piece(run, seen, slice(free, free + size), slice(start - first, end - first)))
            free, start = free + size + 1, end
    if block:
        yield block


def _on_grid(values: Array, grid: float) -> Array:
    """The nearest multiples of `grid`, a power of 2, as float64."""
    return np.rint(values.astype(np.float64) / grid) * grid


def _rounded(values: Array) -> Array:
    """The nearest multiples of FINE, at most MOST; in place."""
    np.clip(values, -MOST, MOST, out=values)
    values += ROUND
    values -= ROUND
    return values


def _matrix(weights: Array, bias: Array) -> Layer:
    """A matrix, [inputs, outputs], and a bias, whose sums of products with rounded values are exact."""
    bits = SUM_BITS - VALUE_BITS - math.ceil(math.log2(len(weights)))
    most = 2.0 ** math.ceil(math.log2(max(float(np.abs(weights).max()), FINE)))
    grid = most / 2**bits
    return np.ascontiguousarray(_on_grid(weights, grid)), _on_grid(bias, FINE * grid)


def _product(values: Array, layer: Layer) -> Array:
    weights, bias = layer
    found = values @ weights
    found += bias
    return found


def _sigmoid(values: Array) -> Array:
    """1 / (1 + e^−x) of rounded values, rounded: from a table, since exponentials differ by processor; beyond ±STEEP that of STEEP."""
    places = values / FINE
    places += STEEP / FINE
    return np.take(_table(), places.astype(np.int64), mode="clip")


@functools.cache
def _table() -> Array:
    steps = round(STEEP / FINE)
    exact = (1 / (1 + math.exp(-number * FINE)) for number in range(-steps, steps + 1))
    return np.array([round(value / FINE) * FINE for value in exact])


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; {REMEDY}")
    found = read_json(path)
    if not isinstance(found, dict):
        raise BadInput(f"{path}: not what genpipe train writes; {REMEDY}")
    return found


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; {REMEDY}")
    return path.read_bytes()
