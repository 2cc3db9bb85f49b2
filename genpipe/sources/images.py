"""Images as arrays of bytes: MNIST's files, or a folder of PNG and JPEG files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from genpipe.errors import BadInput
from genpipe.params.corpora import Dataset
from genpipe.progress import shown
from genpipe.sources.idx import read_idx
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import is_test

Counts = dict[str, int]
SUFFIXES = {".png", ".jpg", ".jpeg"}


def prepare_digits(source: Path, directory: Path, dataset: Dataset) -> Prepared:
    """Write images [N, 28, 28] and labels [N] of the four IDX files of MNIST."""
    counts: Counts = {}
    for split in ("train", "test"):
        images = _read(source / f"{split}-images-idx3-ubyte", 3)
        labels = _read(source / f"{split}-labels-idx1-ubyte", 1)
        if len(images) != len(labels):
            raise BadInput(
                f"{source}: wanted a label for each of the {len(images):,} {split} images, found {len(labels):,}; "
                "take both files from one source"
            )
        counts |= _save(directory, split, images, labels)
    return Prepared(counts)


def prepare_image_folder(source: Path, directory: Path, dataset: Dataset) -> Prepared:
    """Write grey images [N, size, size] and, where they lie in sub-folders, labels [N]; the classes by label."""
    names = _image_names(source)
    classes = _classes(source, names)
    tested = np.array([is_test(name, dataset.test_share) for name in names])
    if tested.all() or not tested.any():
        raise BadInput(
            f"{source}: wanted images to train and to test, found {(~tested).sum()} and {tested.sum()} "
            f"with test_share {dataset.test_share}; add images or change test_share"
        )
    images = np.stack(
        [_grey(source / name, dataset.image_size) for name in shown(names, "prepare", "images")]
    )
    labels = np.array([classes.index(name.split("/")[0]) for name in names], np.uint8) if classes else None
    counts: Counts = {}
    for split, rows in (("train", ~tested), ("test", tested)):
        counts |= _save(directory, split, images[rows], None if labels is None else labels[rows])
    return Prepared(counts, classes=classes)


def _read(path: Path, ndim: int) -> NDArray[np.uint8]:
    if not path.is_file():
        raise BadInput(
            f"{path}: no such file; run `genpipe data`, or name a directory with MNIST's four IDX files"
        )
    return read_idx(path, ndim)


def _save(directory: Path, split: str, images: NDArray[np.uint8], labels: NDArray[np.uint8] | None) -> Counts:
    arrays = {f"{split}_images.npy": images} | ({} if labels is None else {f"{split}_labels.npy": labels})
    for name, array in arrays.items():
        np.save(directory / name, np.ascontiguousarray(array))
    return {name: len(array) for name, array in arrays.items()}


def _image_names(source: Path) -> list[str]:
    files = (path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    names = sorted(path.relative_to(source).as_posix() for path in files)
    if not names:
        raise BadInput(
            f"{source}: wanted PNG or JPEG files, found none; put images there, in a sub-folder for each class"
        )
    return names


def _classes(source: Path, names: list[str]) -> list[str]:
    """The first sub-folders, in sorted order; none if no image is in one."""
    folders = {name.split("/")[0] for name in names if "/" in name}
    loose = [name for name in names if "/" not in name]
    if folders and loose:
        raise BadInput(
            f"{source / loose[0]}: wanted every image in the sub-folder of its class, found it outside; move it"
        )
    if len(folders) > 256:
        raise BadInput(f"{source}: wanted at most 256 classes, found {len(folders)} sub-folders; merge some")
    return sorted(folders)


def _grey(path: Path, size: int) -> NDArray[np.uint8]:
    """The middle square of an image, upright, on white, as [size, size] bytes."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits a pixel: convert("L") would cut, not scale
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            if upright.has_transparency_data:
                upright = Image.alpha_composite(
                    Image.new("RGBA", upright.size, "white"), upright.convert("RGBA")
                )
            return np.asarray(ImageOps.fit(upright.convert("L"), (size, size), Image.Resampling.LANCZOS))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path}: wanted a PNG or JPEG image, {error}; mend or remove it") from None
