"""Texts, each beside a vector of what it is about, such as the features of an image."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import AGAIN, Described, Example, chunks, read_array, shuffled_rows
from genpipe.data.texts import Texts
from genpipe.errors import BadState
from genpipe.params.blocks import Count


class Captions(Described):
    """SPLIT.text, padded, with SPLIT.vector.npy, float32 [rows, vector_dim].

    `max_length` cuts longer texts.
    """

    unit = "token"

    def __init__(self, directory: Path, max_length: Count | None = None) -> None:
        super().__init__(directory)
        self.texts = {split: Texts(directory, split, "text", max_length) for split in self.splits}
        self.vectors = {split: read_array(directory / f"{split}.vector.npy") for split in self.splits}
        for split, texts in self.texts.items():
            self.require_rows(split, len(texts))
            shape = (len(texts), self.facts.get("vector_dim"))
            if self.vectors[split].shape != shape:
                raise BadState(
                    f"{directory / split}.vector.npy: {list(self.vectors[split].shape)}, not {list(shape)}; {AGAIN}"
                )
        self.facts["max_length"] = min(self.facts["max_length"], max_length or self.facts["max_length"])

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """`ids`, int64 [batch, time], `lengths`, and `vector`, float32 [batch, vector_dim]."""
        return self._batch("train", shuffled_rows(len(self.texts["train"]), seed, step, batch_size))

    def split(self, name: str) -> Iterator[Example]:
        """The same keys, in the order of the files."""
        return (self._batch(name, rows) for rows in chunks(len(self.texts[self.require(name)])))

    def units(self, example: Example) -> Tensor:
        """Tokens of each text."""
        return example["lengths"]

    def _batch(self, split: str, rows: np.ndarray) -> Example:
        ids, lengths = self.texts[split].padded(rows, self.facts["pad"])
        return {"ids": ids, "lengths": lengths, "vector": torch.from_numpy(self.vectors[split][rows])}
