"""Observations of one system at some times: sparse ones to train on, others at times between and after them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import AGAIN, Described, Example, chunks, read_array, shuffled_rows
from genpipe.errors import BadState

FACTS = ("dim", "initial_state", "first_time", "last_time", "scales", "num_observations", "coordinates")


class Trajectory(Described):
    """SPLIT_times.npy, float64 [rows], ascending, and SPLIT_values.npy, float32 [rows, dim], NaN where nothing was observed."""

    unit = "observation"

    def __init__(self, directory: Path) -> None:
        """Raises BadState where files or facts are not those of a trajectory."""
        super().__init__(directory)
        for fact in FACTS:
            if fact not in self.facts:
                raise BadState(
                    f"{directory / 'data.json'}: facts: no {fact}, which data of the kind trajectory has; {AGAIN}"
                )
        self.times, self.values = (
            {split: read_array(directory / f"{split}_{name}.npy") for split in self.splits}
            for name in ("times", "values")
        )
        for split, values in self.values.items():
            self.require_rows(split, len(values))
            if values.shape != (len(self.times[split]), self.facts["dim"]):
                raise BadState(
                    f"{directory / f'{split}_values.npy'}: {list(values.shape)}, and there are {len(self.times[split]):,} times of "
                    f"{self.facts['dim']} coordinates; {AGAIN}"
                )

    def train_batch(self, seed: int, step: int, batch_size: int) -> Example:
        """Of a step: `times`, float32 [batch], and `values`, float32 [batch, dim], 0 where `seen`, bool [batch, dim], is false.

        `rows`, int64 [batch], are the numbers of the observations.
        """
        return self._rows("train", shuffled_rows(len(self.times["train"]), seed, step, batch_size))

    def split(self, name: str) -> Iterator[Example]:
        """The same keys, in the order of time."""
        self.require(name)
        return (self._rows(name, rows) for rows in chunks(len(self.times[name])))

    def units(self, example: Example) -> Tensor:
        """Observed coordinates of each row."""
        return example["seen"].sum(1)

    def _rows(self, split: str, rows: np.ndarray) -> Example:
        values = torch.from_numpy(self.values[split][rows].astype(np.float32))
        seen = ~values.isnan()
        return {
            "times": torch.from_numpy(self.times[split][rows].astype(np.float32)),
            "values": torch.where(seen, values, torch.zeros_like(values)),
            "seen": seen,
            "rows": torch.from_numpy(rows.astype(np.int64)),
        }
