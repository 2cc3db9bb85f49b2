"""Documents laid one after another and cut into windows of one length."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import AGAIN, Described, Example, chunks, derived_seed, read_array
from genpipe.data.texts import Texts
from genpipe.errors import BadInput, BadState
from genpipe.params.blocks import Count


class Order(NamedTuple):
    """Documents in an order, each with the id that ends it."""

    documents: np.ndarray  # numbers, int64 [documents]
    ends: np.ndarray  # where each one ends in the stream, int64 [documents]


class Stream(Described):
    """Windows of `time` tokens: window r of an epoch is tokens [r time, (r + 1) time) of its shuffled documents.

    What is left of an epoch after its last whole window is not used in that epoch.
    """

    unit = "token"

    def __init__(self, directory: Path, time: Count = 128) -> None:
        super().__init__(directory)
        self.texts = {split: Texts(directory, split, "text") for split in self.splits}
        self.words = {split: _words(directory, split, len(texts.ids)) for split, texts in self.texts.items()}
        self.time = time
        self.facts["time"] = time
        for split, texts in self.texts.items():
            self.require_rows(split, len(texts.ids))
        if self._tokens("train") < time:
            raise BadInput(
                f"{directory}: {self._tokens('train')} tokens to train and windows of {time}; lower train.batches.time"
            )
        self._epoch = functools.lru_cache(2)(self._shuffled)  # a batch may need the epoch before, too

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """`ids`, `documents`, their numbers from 0 in each window, and `positions`, int64 [batch, time].

        Positions are counted from the first token that the window has of a document, so all are below `time`. Where the encoding
        marks words, `words` numbers those of each window from 0; an end mark, and each <pad>, is a word of its own.
        """
        per_epoch = self._tokens("train") // self.time
        places = [divmod(n, per_epoch) for n in range(step * batch_size, (step + 1) * batch_size)]
        return self._stacked([self._window("train", self._epoch(seed, epoch), r) for epoch, r in places])

    def split(self, name: str) -> Iterator[Example]:
        """Windows of the documents in the order of the file; the last is filled with <pad>, as a document of its own."""
        order = self._in_order(name, np.arange(len(self.texts[self.require(name)])))
        windows = chunks(-(-self._tokens(name) // self.time))
        return (self._stacked([self._window(name, order, int(r)) for r in part]) for part in windows)

    def units(self, example: Example) -> Tensor:
        """Tokens of each window, <pad> not counted."""
        return (example["ids"] != self.facts["pad"]).sum(1)

    @property
    def _marks_words(self) -> bool:
        return not any(isinstance(words, _NoWords) for words in self.words.values())

    def _tokens(self, split: str) -> int:
        return len(self.texts[split].ids) + len(self.texts[split])

    def _shuffled(self, seed: int, epoch: int) -> Order:
        random = np.random.Generator(np.random.Philox(derived_seed(seed, "documents", epoch)))
        return self._in_order("train", random.permutation(len(self.texts["train"])))

    def _in_order(self, split: str, documents: np.ndarray) -> Order:
        return Order(documents, np.cumsum(self.texts[split].lengths[documents] + 1))

    def _window(self, split: str, order: Order, number: int) -> np.ndarray:
        """Ids, documents, positions and starts of words of a window, int64 [4, time]."""
        first, texts, words = number * self.time, self.texts[split], self.words[split]
        place, filled = int(np.searchsorted(order.ends, first, side="right")), 0
        parts: list[np.ndarray] = []
        while filled < self.time and place < len(order.documents):
            document = int(order.documents[place])
            text = np.append(texts[document], self.facts["end"])
            starts = np.append(words[texts.offsets[document] : texts.offsets[document + 1]], 1)
            start = first + filled - (int(order.ends[place]) - len(text))
            part, starts = (x[start : start + self.time - filled] for x in (text, starts))
            parts.append(np.stack([part, np.full_like(part, len(parts)), np.arange(len(part)), starts]))
            filled, place = filled + len(part), place + 1
        rest = self.time - filled
        if rest:
            pads = np.full(rest, self.facts["pad"])
            parts.append(np.stack([pads, np.full(rest, len(parts)), np.arange(rest), np.ones_like(pads)]))
        return np.concatenate(parts, axis=1)

    def _stacked(self, windows: list[np.ndarray]) -> Example:
        ids, documents, positions, starts = torch.from_numpy(np.stack(windows, axis=1))
        batch = {"ids": ids, "documents": documents, "positions": positions}
        starts[:, 0] = 1  # a window that begins within a word has the rest of it as a word
        return batch | ({"words": starts.cumsum(1) - 1} if self._marks_words else {})


class _NoWords:
    """In place of marks: each token is a word."""

    def __getitem__(self, part: slice) -> np.ndarray:
        return np.ones(part.stop - part.start, np.int64)


def _words(directory: Path, split: str, num_tokens: int) -> np.ndarray | _NoWords:
    """Where words begin, uint8 [tokens], as the encoding marked them."""
    path = directory / f"{split}.text.words.npy"
    if not path.exists():
        return _NoWords()
    words = read_array(path)
    if words.shape != (num_tokens,):
        raise BadState(f"{path}: {list(words.shape)} marks of {num_tokens:,} tokens; {AGAIN}")
    return words
