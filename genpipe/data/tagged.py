"""Texts with a tag on each token, with one label, or with a class of each of several conditions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import Described, Example, chunks, read_array, shuffled_rows
from genpipe.data.texts import Texts, padded
from genpipe.params.blocks import Count


class Tagged(Described):
    """SPLIT.text, padded, with SPLIT.tags.npy, a number for each token, or SPLIT.label.npy, one for each text.

    Where the facts name `conditions`, SPLIT.NAME.npy has a number for each text and condition, which a batch has under its name.
    """

    unit = "token"

    def __init__(self, directory: Path, max_length: Count | None = None) -> None:
        super().__init__(directory)
        self.texts = {split: Texts(directory, split, "text", max_length) for split in self.splits}
        fields = [*self.facts.get("conditions", ["tags" if "num_tags" in self.facts else "label"])]
        self.marks = {
            split: {field: read_array(directory / f"{split}.{field}.npy") for field in fields}
            for split in self.splits
        }
        for split, texts in self.texts.items():
            self.require_rows(split, len(texts))

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """`ids`, int64 [batch, time], `lengths`, and `tags`, int64 [batch, time] with 0 beyond the length, or `labels`, or conditions."""
        return self._rows("train", shuffled_rows(len(self.texts["train"]), seed, step, batch_size))

    def split(self, name: str) -> Iterator[Example]:
        """The same keys, in the order of the files."""
        return (self._rows(name, rows) for rows in chunks(len(self.texts[self.require(name)])))

    def units(self, example: Example) -> Tensor:
        """Tokens of each text."""
        return example["lengths"]

    def _rows(self, split: str, rows: np.ndarray) -> Example:
        texts, marks = self.texts[split], self.marks[split]
        ids, lengths = texts.padded(rows, self.facts["pad"])
        batch = {"ids": ids, "lengths": lengths}
        if "num_tags" not in self.facts:
            classes = {name: torch.from_numpy(own[rows].astype(np.int64)) for name, own in marks.items()}
            return batch | {"labels" if name == "label" else name: own for name, own in classes.items()}
        starts = texts.offsets[rows]
        tags = [marks["tags"][s : s + n] for s, n in zip(starts, lengths.tolist(), strict=True)]
        return batch | {"tags": padded(tags, 0)[0]}
