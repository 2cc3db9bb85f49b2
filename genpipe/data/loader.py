"""Batches as a pure function of (seed, step): the loader has no state, so resuming needs only the step number."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from genpipe.errors import BadInput


class Data(Protocol):
    """What a recipe trains on."""

    facts: dict[str, Any]  # what a model must know to be built: image_shape, num_classes, num_tokens

    def train_batch(self, seed: int, step: int, batch_size: int) -> Mapping[str, Tensor]:
        """The batch of a step, each tensor with `batch_size` rows; the same for the same arguments."""
        ...


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that is a pure function of `parts`."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def shuffled_rows(num_rows: int, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Row numbers, int64 [batch_size], of a step: epoch after epoch, each in an order of its own.

    The last batch of an epoch goes on into the next one, so every row is seen equally often.
    """
    wanted = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(wanted // num_rows):
        order = _order(num_rows, seed, int(epoch))
        here = wanted // num_rows == epoch
        rows[here] = order[wanted[here] % num_rows]
    return rows


@functools.lru_cache(8)  # a batch may need the epoch before, too; pairs have an order for each length
def _order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the rows in an epoch, int64 [num_rows]."""
    return np.random.Generator(np.random.Philox(derived_seed(seed, "epoch", epoch))).permutation(num_rows)


def read_array(path: Path) -> np.ndarray:
    """A memory-mapped .npy file; a missing or broken one is an error that names it."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; run the stage that makes it (genpipe plan names it)") from None
    except (ValueError, EOFError, OSError) as error:
        raise BadInput(f"{path}: wanted a NumPy array, {error}; run the stage that makes it again") from None
