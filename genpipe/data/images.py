"""Images as arrays of bytes, grey or in colours."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import AGAIN, Described, Example, Held, Size, in_parts, read_array, read_labels
from genpipe.errors import BadState


class Images(Described):
    """SPLIT_images.npy, uint8 [rows, channels, height, width], and SPLIT_labels.npy, [rows], where there are classes."""

    unit = "pixel"

    def __init__(self, directory: Path, validation: Size = 0) -> None:
        """`validation` is the number of training rows that are held out: never trained on, the split of that name."""
        super().__init__(directory)
        self.images = {split: self._read(directory / f"{split}_images.npy") for split in self.splits}
        for split, images in self.images.items():
            self.require_rows(split, len(images))
        self.held = Held.out(validation, len(self.images["train"]))
        self.labels: dict[str, np.ndarray] = {}
        if "num_classes" in self.facts:
            self.labels = {
                split: read_labels(directory / f"{split}_labels.npy", len(images), self.facts["num_classes"])
                for split, images in self.images.items()
            }

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """`images`, uint8 [batch, channels, height, width], `rows`, their numbers, and `labels`, int64 [batch]."""
        return self._rows("train", self.held.batch(seed, step, batch_size))

    def split(self, name: str) -> Iterator[Example]:
        """The same keys, in the order of the files."""
        file = "train" if name == "validation" and len(self.held.validation) else self.require(name)
        rows = self.held.rows(name, len(self.images[file]))
        return (self._rows(file, part) for part in in_parts(rows))

    def units(self, example: Example) -> Tensor:
        """Pixels × channels of each image."""
        return torch.full((len(example["images"]),), math.prod(self.facts["image_shape"]))

    def _read(self, path: Path) -> np.ndarray:
        images, shape = read_array(path), self.facts["image_shape"]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise BadState(
                f"{path}: {images.dtype} {list(images.shape)}, and images are uint8 [rows, {', '.join(map(str, shape))}]; "
                f"{AGAIN}"
            )
        return images

    def _rows(self, split: str, rows: np.ndarray) -> Example:
        batch = {"images": torch.from_numpy(self.images[split][rows]), "rows": torch.from_numpy(rows)}
        if self.labels:
            batch["labels"] = torch.from_numpy(self.labels[split][rows].astype(np.int64))
        return batch
