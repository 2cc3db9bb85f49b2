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

    `max_length` cuts longer texts; with `whole` it leaves them out instead, so that every text has its own end.
    Where the facts name `conditions`, SPLIT.NAME.npy has a number for each text and condition, which a batch has under its name.
    """

    unit = "token"

    def __init__(self, directory: Path, max_length: Count | None = None, whole: bool = False) -> None:
        super().__init__(directory)
        self.texts = {split: Texts(directory, split, "text", max_length) for split in self.splits}
        known = {"tags": "num_tags", "label": "num_classes"}
        fields = [field for field, fact in known.items() if fact in self.facts]
        fields += self.facts.get("conditions", {})
        self.marks = {
            split: {field: read_array(directory / f"{split}.{field}.npy") for field in fields}
            for split in self.splits
        }
        self.rows = {split: self._fitting(split, max_length if whole else None) for split in self.splits}
        for split, rows in self.rows.items():
            self.require_rows(split, len(rows))
        if max_length and "max_length" in self.facts:
            self.facts["max_length"] = min(self.facts["max_length"], max_length)

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """`ids`, int64 [batch, time], `lengths`, and `tags`, int64 [batch, time] with 0 beyond the length, or `labels`, or conditions."""
        rows = self.rows["train"]
        return self._batch("train", rows[shuffled_rows(len(rows), seed, step, batch_size)])

    def split(self, name: str) -> Iterator[Example]:
        """The same keys, in the order of the files."""
        rows = self.rows[self.require(name)]
        return (self._batch(name, rows[part]) for part in chunks(len(rows)))

    def units(self, example: Example) -> Tensor:
        """Tokens of each text."""
        return example["lengths"]

    def _fitting(self, split: str, most: int | None) -> np.ndarray:
        """The numbers of the texts of at most so many tokens."""
        lengths = np.diff(self.texts[split].offsets)
        return np.flatnonzero(lengths <= (most or np.inf))

    def _batch(self, split: str, rows: np.ndarray) -> Example:
        texts = self.texts[split]
        ids, lengths = texts.padded(rows, self.facts["pad"])
        batch = {"ids": ids, "lengths": lengths}
        for field, own in self.marks[split].items():
            if field == "tags":
                starts = texts.offsets[rows]
                tags = [own[s : s + n] for s, n in zip(starts, lengths.tolist(), strict=True)]
                batch["tags"], _ = padded(tags, 0)
            else:
                key = "labels" if field == "label" else field
                batch[key] = torch.from_numpy(own[rows].astype(np.int64))
        return batch
