"""Images as arrays of bytes: MNIST's files, or a folder of pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpipe.errors import BadInput, BadState
from genpipe.params.corpora import Digits, ImageFolder
from genpipe.sources.examples import SPLITS, Examples, facts_of, save_images, write_examples
from genpipe.sources.folders import Found, Split, find_pictures
from genpipe.sources.idx import read_idx
from genpipe.sources.pictures import pixels_of
from genpipe.sources.prepared import Prepared


def prepare_digits(source: Path, directory: Path, dataset: Digits) -> Prepared:
    """Write images [n, 1, 28, 28] and labels [n] of the four IDX files of MNIST."""
    counts: dict[str, int] = {}
    facts: dict[str, Any] = {}
    for split in SPLITS:
        images = _read(source / f"{split}-images-idx3-ubyte", 3)[:, None]
        labels = _read(source / f"{split}-labels-idx1-ubyte", 1)
        if len(images) != len(labels):
            raise BadInput(
                f"{source}: {len(images):,} {split} images and {len(labels):,} labels; take both files from one source"
            )
        counts |= save_images(directory, split, images, labels)
        facts = facts or facts_of(images, int(labels.max()) + 1)
    return Prepared(SPLITS, facts, counts)


def prepare_image_folder(source: Path, directory: Path, dataset: ImageFolder) -> Prepared:
    """Write images [n, channels, size, size] and, where they lie in folders of classes, labels [n]."""
    found = find_pictures(source)
    images, losses = pixels_of(
        [picture.path for picture in found.pictures], dataset.image_size, dataset.colour
    )
    notes = [*found.notes, *losses]
    return write_examples(
        source, directory, _examples(found, images), dataset.test_share, found.left_out, notes
    )


def _read(path: Path, ndim: int) -> NDArray[np.uint8]:
    if not path.is_file():
        raise BadState(
            f"{path}: no such file; run `genpipe data`, or name a directory with MNIST's four IDX files"
        )
    return read_idx(path, ndim)


def _examples(found: Found, images: NDArray[np.uint8]) -> Examples:
    labels = [picture.label for picture in found.pictures if picture.label is not None]
    splits: list[Split] = [picture.split for picture in found.pictures if picture.split is not None]
    return Examples(images, labels or None, splits or None)
