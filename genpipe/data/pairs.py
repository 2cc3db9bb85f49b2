"""Pairs of texts as token ids: a source, and the target that answers it."""

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from genpipe.data.loader import Described, Example, chunks, derived_seed, shuffled_rows
from genpipe.data.texts import Texts
from genpipe.errors import BadInput
from genpipe.params.blocks import Count


class Pairs(Described):
    """Pairs, padded to the longest of a batch; with `aligned`, both sides of all pairs of a batch have one length.

    `max_length` cuts longer texts. `units` counts the tokens of the target.
    """

    unit = "token"

    def __init__(self, directory: Path, aligned: bool = False, max_length: Count | None = None) -> None:
        super().__init__(directory)
        self.texts = {
            split: {field: Texts(directory, split, field, max_length) for field in ("source", "target")}
            for split in self.splits
        }
        self.facts["max_length"] = min(self.facts["max_length"], max_length or self.facts["max_length"])
        for split, texts in self.texts.items():
            self.require_rows(split, len(texts["source"]))
        self.by_length = {split: self._by_length(split) for split in self.splits} if aligned else {}

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """`source` and `target`, int64 [batch, time], with `source_lengths` and `target_lengths`, int64 [batch].

        Aligned pairs: each length goes through its pairs in one shuffled order after another (`shuffled_rows`). k epochs
        take ceil(k pairs / batch_size) batches of each length, those of one epoch in a random order: every pair is seen k
        times, and the pairs that fill the last batch of their length, the first of its next order, once more.
        """
        if not self.by_length:
            return self._rows("train", shuffled_rows(self._number("train"), seed, step, batch_size))
        length, turn = self._turn(seed, step, batch_size)
        rows = self.by_length["train"][length]
        order = shuffled_rows(len(rows), derived_seed(seed, "pairs", length), turn, batch_size)
        return self._rows("train", rows[order])

    def split(self, name: str) -> Iterator[Example]:
        """The same keys, in the order of the files; aligned pairs the shortest first, one length a chunk."""
        all_rows = np.arange(self._number(self.require(name)))
        parts = [rows for _, rows in sorted(self.by_length[name].items())] if self.by_length else [all_rows]
        return (self._rows(name, rows[part]) for rows in parts for part in chunks(len(rows)))

    def units(self, example: Example) -> Tensor:
        """Tokens of each target."""
        return example["target_lengths"]

    def _number(self, split: str) -> int:
        return len(self.texts[split]["source"])

    def _rows(self, split: str, rows: np.ndarray) -> Example:
        batch: dict[str, Tensor] = {}
        for field, texts in self.texts[split].items():
            batch[field], batch[f"{field}_lengths"] = texts.padded(rows, self.facts["pad"])
        return batch

    def _turn(self, seed: int, step: int, batch_size: int) -> tuple[int, int]:
        """The length of a step, and how many batches of that length came before."""
        sizes = {length: len(rows) for length, rows in sorted(self.by_length["train"].items())}

        def batches(epochs: int) -> dict[int, int]:
            """How many of each length so many epochs take."""
            return {length: -(-epochs * size // batch_size) for length, size in sizes.items()}

        # an epoch takes at least pairs / batch_size batches, which bounds the number of epochs
        epochs = range(step * batch_size // sum(sizes.values()) + 2)
        epoch = bisect_right(epochs, step, key=lambda number: sum(batches(number).values())) - 1
        before, after = batches(epoch), batches(epoch + 1)
        turns = [(length, turn) for length in sizes for turn in range(before[length], after[length])]
        order = np.random.Generator(np.random.Philox(derived_seed(seed, "lengths", epoch)))
        return turns[order.permutation(len(turns))[step - sum(before.values())]]

    def _by_length(self, split: str) -> dict[int, np.ndarray]:
        """The numbers of the pairs of each length."""
        source, target = (texts.lengths for texts in self.texts[split].values())
        unequal = np.flatnonzero(source != target)
        if len(unequal):
            raise BadInput(
                f"{self.directory}/{split}: pair {unequal[0]} has {source[unequal[0]]} and {target[unequal[0]]} tokens, "
                "and aligned pairs have one length; take train.batches.aligned out"
            )
        return {int(length): np.flatnonzero(source == length) for length in np.unique(source)}
