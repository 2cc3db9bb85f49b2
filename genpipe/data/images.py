"""Grey images as arrays of bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import read_array, shuffled_rows


class Images:
    """A prepared data set of images: uint8 [rows, height, width], with labels where there are some."""

    def __init__(self, directory: Path) -> None:
        self.images = {split: read_array(directory / f"{split}_images.npy") for split in ("train", "test")}
        labelled = (directory / "train_labels.npy").exists()
        splits = ("train", "test") if labelled else ()
        self.labels = {split: read_array(directory / f"{split}_labels.npy") for split in splits}
        num_images, *image_shape = self.images["train"].shape
        self.facts: dict[str, Any] = {"image_shape": tuple(image_shape), "num_images": num_images}
        if labelled:
            self.facts |= {"num_classes": int(self.labels["train"].max()) + 1}

    def train_batch(self, seed: int, step: int, batch_size: int) -> Mapping[str, Tensor]:
        """`images`, uint8 [batch, height, width], `rows`, their numbers, and `labels`, int64 [batch], where there are some."""
        rows = shuffled_rows(len(self.images["train"]), seed, step, batch_size)
        batch = {"images": torch.from_numpy(self.images["train"][rows]), "rows": torch.from_numpy(rows)}
        if self.labels:
            batch["labels"] = torch.from_numpy(self.labels["train"][rows].astype(np.int64))
        return batch

    def test(self) -> Mapping[str, Tensor]:
        """The whole test split: `images`, and `labels` where there are some."""
        batch = {"images": torch.from_numpy(np.array(self.images["test"]))}
        if self.labels:
            batch["labels"] = torch.from_numpy(self.labels["test"].astype(np.int64))
        return batch
