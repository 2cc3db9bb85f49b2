"""Questions with passages to read and answers to give."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from genpipe.data.loader import Described, Example, chunks, read_array, shuffled_rows
from genpipe.data.texts import Texts, padded
from genpipe.params.blocks import Count


class Passages(Described):
    """SPLIT.question, SPLIT.passages and SPLIT.answer; several passages and answers of a question lie one after another.

    SPLIT.FIELD.items.npy says where those of each question begin. The first answer is the one to learn, the others are aliases.
    """

    unit = "token"

    def __init__(
        self, directory: Path, num_passages: Count | None = None, max_length: Count | None = None
    ) -> None:
        super().__init__(directory)
        self.num_passages = num_passages
        if "max_length" in self.facts:
            self.facts["max_length"] = min(self.facts["max_length"], max_length or self.facts["max_length"])
        self.questions = {split: Texts(directory, split, "question", max_length) for split in self.splits}
        self.texts = {
            field: {split: Texts(directory, split, field, max_length) for split in self.splits}
            for field in ("passages", "answer")
        }
        self.items = {
            field: {split: read_array(directory / f"{split}.{field}.items.npy") for split in self.splits}
            for field in ("passages", "answer")
        }
        for split, questions in self.questions.items():
            self.require_rows(split, len(questions))

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """`question` [batch, time], `passages` [batch, k, time], `answer` [batch, time], int64, each with its lengths.

        A question with fewer than k passages has passages of length 0.
        """
        return self._rows("train", shuffled_rows(len(self.questions["train"]), seed, step, batch_size))

    def split(self, name: str) -> Iterator[Example]:
        """The same keys, and `aliases` [rows, a, time] with `alias_lengths`: all answers that are right."""
        return (
            self._rows(name, rows) | self._several("answer", "aliases", "alias_lengths", name, rows)
            for rows in chunks(len(self.questions[self.require(name)]))
        )

    def units(self, example: Example) -> Tensor:
        """Tokens of each answer."""
        return example["answer_lengths"]

    def _rows(self, split: str, rows: np.ndarray) -> dict[str, Tensor]:
        pad, batch = self.facts["pad"], dict[str, Tensor]()
        batch["question"], batch["question_lengths"] = self.questions[split].padded(rows, pad)
        first = self.items["answer"][split][rows]
        batch["answer"], batch["answer_lengths"] = self.texts["answer"][split].padded(first, pad)
        return batch | self._several(
            "passages", "passages", "passage_lengths", split, rows, self.num_passages
        )

    def _several(
        self, field: str, key: str, lengths: str, split: str, rows: np.ndarray, most: int | None = None
    ) -> dict[str, Tensor]:
        """The texts of a field with several of them a row, int64 [rows, k, time], and their lengths, [rows, k]."""
        items, texts = self.items[field][split], self.texts[field][split]
        found = [range(items[row], items[row + 1])[:most] for row in rows]
        width = max(map(len, found), default=0)
        nothing = np.zeros(0, np.int64)
        flat = [texts[own[i]] if i < len(own) else nothing for own in found for i in range(width)]
        ids, sizes = padded(flat, self.facts["pad"])
        shape = (len(rows), width)
        return {key: ids.unflatten(0, shape), lengths: sizes.unflatten(0, shape)}
