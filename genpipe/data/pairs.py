"""Pairs of lines of equal length, as token ids."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import derived_seed, read_array
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
        """`upper` and `lower`, int64 [batch, time], of one length, chosen in proportion to the pairs of that length."""
        rng = np.random.Generator(np.random.Philox(derived_seed(seed, "pairs", step)))
        lengths = sorted(self.groups["train"])
        sizes = np.array([len(self.groups["train"][length]) for length in lengths], dtype=np.float64)
        pairs = self.groups["train"][lengths[rng.choice(len(lengths), p=sizes / sizes.sum())]]
        return as_batch(pairs[rng.integers(len(pairs), size=batch_size)])

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
