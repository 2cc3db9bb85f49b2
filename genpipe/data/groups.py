"""Texts in groups of the same meaning."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import Described, Example, chunks, derived_seed, read_array, shuffled_rows
from genpipe.data.texts import Texts
from genpipe.errors import BadInput
from genpipe.params.blocks import Count


class Groups(Described):
    """SPLIT.text and SPLIT.group.npy; a batch has `per_group` texts of each of its groups, one after another."""

    unit = "token"

    def __init__(self, directory: Path, per_group: Count = 2, max_length: Count | None = None) -> None:
        super().__init__(directory)
        self.texts = {split: Texts(directory, split, "text", max_length) for split in self.splits}
        self.groups = {split: read_array(directory / f"{split}.group.npy") for split in self.splits}
        for split, texts in self.texts.items():
            self.require_rows(split, len(texts))
        if max_length and "max_length" in self.facts:
            self.facts["max_length"] = min(self.facts["max_length"], max_length)
        self.rows_together = per_group
        order = np.argsort(self.groups["train"], kind="stable")
        _, starts = np.unique(self.groups["train"][order], return_index=True)
        self.members = np.split(order, starts[1:])
        small = sum(len(rows) < per_group for rows in self.members)
        if small:
            raise BadInput(
                f"{directory}: {small} of {len(self.members)} groups have fewer than {per_group} texts; "
                "lower train.batches.per_group, or take them out of the data"
            )

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """`ids`, int64 [batch, time], `lengths` and `groups`, int64 [batch].

        Groups come in one shuffled order after another; of each, `per_group` texts that the epoch draws.
        """
        number = batch_size // self.rows_together
        chosen = shuffled_rows(len(self.members), seed, step, number)
        epochs = np.arange(step * number, (step + 1) * number) // len(self.members)
        drawn = [self._drawn(seed, int(e), int(g)) for e, g in zip(epochs, chosen, strict=True)]
        return self._rows("train", np.concatenate(drawn))

    def split(self, name: str) -> Iterator[Example]:
        """The same keys, in the order of the files."""
        return (self._rows(name, rows) for rows in chunks(len(self.texts[self.require(name)])))

    def units(self, example: Example) -> Tensor:
        """Tokens of each text."""
        return example["lengths"]

    def _drawn(self, seed: int, epoch: int, group: int) -> np.ndarray:
        random = np.random.Generator(np.random.Philox(derived_seed(seed, "group", epoch, group)))
        return random.permutation(self.members[group])[: self.rows_together]

    def _rows(self, split: str, rows: np.ndarray) -> Example:
        ids, lengths = self.texts[split].padded(rows, self.facts["pad"])
        groups = torch.from_numpy(self.groups[split][rows].astype(np.int64))
        return {"ids": ids, "lengths": lengths, "groups": groups}
