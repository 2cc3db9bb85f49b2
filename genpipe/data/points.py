"""Points in a space of few dimensions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import Described, Example, Held, Size, in_parts, read_array, read_labels


class Points(Described):
    """SPLIT_points.npy, float32 [rows, dim], and SPLIT_labels.npy, [rows], where there are classes."""

    unit = "point"

    def __init__(self, directory: Path, validation: Size = 0) -> None:
        """`validation` is the number of training rows that are held out: never trained on, the split of that name."""
        super().__init__(directory)
        self.points = {split: read_array(directory / f"{split}_points.npy") for split in self.splits}
        for split, points in self.points.items():
            self.require_rows(split, len(points))
        self.held = Held.out(validation, len(self.points["train"]))
        self.labels: dict[str, np.ndarray] = {}
        if "num_classes" in self.facts:
            self.labels = {
                split: read_labels(directory / f"{split}_labels.npy", len(points), self.facts["num_classes"])
                for split, points in self.points.items()
            }

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """`points`, float32 [batch, dim], and `labels`, int64 [batch], where there are some."""
        return self._rows("train", self.held.batch(seed, step, batch_size))

    def split(self, name: str) -> Iterator[Example]:
        """The same keys, in the order of the files."""
        file = "train" if name == "validation" and len(self.held.validation) else self.require(name)
        rows = self.held.rows(name, len(self.points[file]))
        return (self._rows(file, part) for part in in_parts(rows))

    def units(self, example: Example) -> Tensor:
        """Coordinates of each point."""
        return torch.full((len(example["points"]),), self.facts["dim"])

    def _rows(self, split: str, rows: np.ndarray) -> Example:
        batch = {"points": torch.from_numpy(self.points[split][rows].astype(np.float32))}
        if self.labels:
            batch["labels"] = torch.from_numpy(self.labels[split][rows].astype(np.int64))
        return batch
