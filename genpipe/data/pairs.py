"""Pairs of lines of equal length, as token ids."""

import itertools
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import derived_seed, read_array, shuffled_rows
from genpipe.errors import BadInput
from genpipe.files import existing, read_json

UNKNOWN = 0  # id of <unk>
NEWLINE = "\n"


class Pairs:
    """An encoded corpus whose documents are two lines of equal length; a batch has one length, so nothing is padded."""

    def __init__(self, directory: Path) -> None:
        vocabulary = existing(directory / "vocabulary.json", "run genpipe encode")
        self.vocabulary: list[str] = read_json(vocabulary)
        if NEWLINE not in self.vocabulary:
            raise BadInput(
                f"{vocabulary}: wanted a vocabulary with a line break in it; count with the tokenizer char"
            )
        self.facts: dict[str, Any] = {"num_tokens": len(self.vocabulary)}
        self.groups = {split: self._by_length(directory, split) for split in ("train", "test")}

    def train_batch(self, seed: int, step: int, batch_size: int) -> Mapping[str, Tensor]:
        """`upper` and `lower`, int64 [batch, time], of one length; every pair is seen equally often.

        Each length goes through its pairs in one shuffled order after another (`shuffled_rows`). k epochs take
        ceil(k pairs / batch_size) batches of each length, those of one epoch in a random order: every pair is seen k times,
        and the pairs that fill the last batch of their length, the first of its next order, once more.
        """
        length, turn = self._turn(seed, step, batch_size)
        pairs = self.groups["train"][length]
        return as_batch(
            pairs[shuffled_rows(len(pairs), derived_seed(seed, "pairs", length), turn, batch_size)]
        )

    def _turn(self, seed: int, step: int, batch_size: int) -> tuple[int, int]:
        """The length of a step, and how many batches of that length came before."""
        sizes = {length: len(pairs) for length, pairs in sorted(self.groups["train"].items())}

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

    def test(self) -> list[Mapping[str, Tensor]]:
        """The whole test split, a batch for each length, shortest first."""
        return [as_batch(pairs) for _, pairs in sorted(self.groups["test"].items())]

    def spelled(self, lines: Tensor) -> list[str]:
        """The text of token ids, [batch, time]; an unknown character is shown as □."""
        return ["".join("□" if i == UNKNOWN else self.vocabulary[i] for i in line) for line in lines.tolist()]

    def _by_length(self, directory: Path, split: str) -> dict[int, np.ndarray]:
        """Token ids, [pairs, 2, time], by the length of a line."""
        ids, offsets = (read_array(directory / f"{split}.{part}.npy") for part in ("ids", "offsets"))
        newline = self.vocabulary.index(NEWLINE)
        groups: dict[int, list[np.ndarray]] = {}
        for number, (start, end) in enumerate(itertools.pairwise(offsets)):
            document = np.asarray(ids[start:end], dtype=np.int64)
            length = (len(document) - 1) // 2
            if len(document) % 2 == 0 or not length or document[length] != newline:
                raise BadInput(f"{directory}/{split}: document {number} is not two lines of equal length")
            groups.setdefault(length, []).append(np.stack([document[:length], document[length + 1 :]]))
        if not groups:
            raise BadInput(f"{directory}/{split}: no documents; check the data set's source")
        return {length: np.stack(pairs) for length, pairs in groups.items()}


def as_batch(pairs: np.ndarray) -> Mapping[str, Tensor]:
    """`upper` and `lower`, int64 [batch, time], from pairs, [batch, 2, time]."""
    return {"upper": torch.from_numpy(pairs[:, 0].copy()), "lower": torch.from_numpy(pairs[:, 1].copy())}
