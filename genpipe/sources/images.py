"""Images as arrays of bytes: MNIST's files, or a folder of pictures."""

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpipe.errors import BadInput, BadState
from genpipe.params.corpora import Digits, ImageFolder
from genpipe.progress import shown
from genpipe.sources.folders import Found, Split, find_pictures
from genpipe.sources.idx import read_idx
from genpipe.sources.near import near_copies
from genpipe.sources.pixels import Read, bits_used, read_deep, read_picture
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import content_order, digest, distinct, groups, split_by_group

SPLITS: tuple[Split, Split] = ("train", "test")


class Examples(NamedTuple):
    """Images uint8 [n, channels, size, size], and what is known of each."""

    images: NDArray[np.uint8]
    digests: list[bytes]
    labels: list[str] | None
    splits: list[Split] | None

    def only(self, rows: Sequence[int]) -> "Examples":
        """Some of them, in the order of `rows`."""
        return Examples(
            self.images[list(rows)],
            [self.digests[i] for i in rows],
            [self.labels[i] for i in rows] if self.labels else None,
            [self.splits[i] for i in rows] if self.splits else None,
        )


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
        counts |= _save(directory, split, images, _digests(images), labels)
        facts = facts or _facts(images, int(labels.max()) + 1)
    return Prepared(SPLITS, facts, counts)


def prepare_image_folder(source: Path, directory: Path, dataset: ImageFolder) -> Prepared:
    """Write images [n, channels, size, size] and, where they lie in folders of classes, labels [n].

    No array depends on the names of files and classes: rows, sides and the numbers of classes follow from the pixels.
    """
    found = find_pictures(source)
    images, losses = _pixels(found, dataset.image_size, dataset.colour)
    notes, left_out = [*found.notes, *losses], found.left_out
    examples = _split(_distinct(_examples(found, images), left_out), dataset.test_share, left_out, notes)
    sides: dict[Split, list[int]] = {split: _side(examples, split) for split in SPLITS}
    if not all(sides.values()):
        why = "".join(f"; {line}" for line in Prepared(SPLITS, {}, {}, left_out, notes).lines()[1:])
        raise BadInput(
            f"{source}: {len(sides['train'])} images to train and {len(sides['test'])} to test; "
            f"add images, at least two different ones of a class{why}"
        )
    classes = _classes(examples)
    notes += [f"class {name}: no image is left" for name in _lost(found, classes)]
    notes += [f"class {name}: no image to test" for name in _untested(examples, classes)]
    counts: dict[str, int] = {}
    for split, rows in sides.items():
        side = examples.only(rows)
        labels = np.array([classes.index(label) for label in side.labels], np.uint8) if side.labels else None
        counts |= _save(directory, split, side.images, side.digests, labels)
    facts = _facts(examples.only(sides["train"]).images, len(classes))
    facts |= {"classes": classes} if classes else {}
    return Prepared(SPLITS, facts, counts, left_out, notes, classes)


def _facts(train: NDArray[np.uint8], num_classes: int) -> dict[str, Any]:
    facts = {"image_shape": list(train.shape[1:]), "num_images": len(train)}
    return facts | ({"num_classes": num_classes} if num_classes else {})


def _read(path: Path, ndim: int) -> NDArray[np.uint8]:
    if not path.is_file():
        raise BadState(
            f"{path}: no such file; run `genpipe data`, or name a directory with MNIST's four IDX files"
        )
    return read_idx(path, ndim)


def _save(
    directory: Path,
    split: Split,
    images: NDArray[np.uint8],
    digests: Sequence[bytes],
    labels: NDArray[np.uint8] | None,
) -> dict[str, int]:
    """Write the rows in the order of their contents: any stretch of them is a fair sample of all."""
    order = content_order(digests)
    arrays = {f"{split}_images.npy": images} | ({} if labels is None else {f"{split}_labels.npy": labels})
    for name, array in arrays.items():
        np.save(directory / name, np.ascontiguousarray(array[order]))
    return {name: len(array) for name, array in arrays.items()}


def _digests(images: NDArray[np.uint8]) -> list[bytes]:
    return [digest(image.tobytes()) for image in images]


def _pixels(
    found: Found, size: int, colour: Literal["auto", "grey", "rgb"]
) -> tuple[NDArray[np.uint8], list[str]]:
    """All pictures, uint8 [n, channels, size, size], and what is lost of them, a line each."""
    paths = [picture.path for picture in found.pictures]
    read = [read_picture(path, size, colour == "grey") for path in shown(paths, "prepare", "images")]
    # Over the data set, not a picture: the brightness of pictures stays comparable.
    bits = bits_used(max(picture.largest for picture in read))
    images = [
        read_deep(path, size, bits) if picture.pixels is None else picture.pixels
        for path, picture in zip(paths, read, strict=True)
    ]
    coloured = colour == "rgb" or any(len(image) == 3 for image in images)
    channels = 3 if coloured else 1
    losses = [*_losses(read, bits, size), *_mixture(read, coloured and colour == "auto")]
    return np.stack([np.broadcast_to(image, (channels, size, size)) for image in images]), losses


def _losses(read: list[Read], bits: int, size: int) -> list[str]:
    lines = {
        "made grey: they have colours": sum(picture.made_grey for picture in read),
        f"of more than 8 bits a pixel, of which {bits} are used: scaled to 8": sum(
            picture.pixels is None for picture in read
        ),
        "in colour with 16 bits a channel: only the upper 8 are read": sum(picture.cut for picture in read),
        "in inks (CMYK): converted to red, green and blue without a colour profile": sum(
            picture.inks for picture in read
        ),
        "transparent: put on white": sum(picture.transparent for picture in read),
        "of several frames: only the first is read": sum(picture.frames > 1 for picture in read),
        f"not {size}×{size} pixels: resized to cover that, and cropped at the centre": sum(
            picture.size != (size, size) for picture in read
        ),
    }
    return [f"{number:,} of {len(read):,} images {what}" for what, number in lines.items() if number]


def _mixture(read: list[Read], coloured: bool) -> list[str]:
    """What differs among the pictures: their sizes, and whether they have colours."""
    sizes = sorted({picture.size for picture in read}, key=lambda size: (size[0] * size[1], size))
    grey = sum(not picture.coloured for picture in read)
    lines: list[str] = []
    if len(sizes) > 1:
        (least, most) = (f"{width}×{height}" for width, height in (sizes[0], sizes[-1]))
        lines.append(f"sizes are mixed: {len(sizes):,} of them, from {least} to {most} pixels")
    if coloured and grey:
        lines.append(f"{grey:,} of {len(read):,} images are grey and get three equal channels")
    return lines


def _examples(found: Found, images: NDArray[np.uint8]) -> Examples:
    labels = [picture.label for picture in found.pictures if picture.label is not None]
    splits: list[Split] = [picture.split for picture in found.pictures if picture.split is not None]
    return Examples(images, _digests(images), labels or None, splits or None)


def _distinct(examples: Examples, left_out: Counter[str]) -> Examples:
    """One image for each content; with given splits, one for each content and split."""
    keys = examples.digests
    if examples.splits:
        keys = [split.encode() + content for split, content in zip(examples.splits, keys, strict=True)]
    kept = distinct(keys, examples.labels)
    left_out["copies of another image"] += kept.copies
    left_out["images under two or more classes, with their copies"] += kept.contradicting
    return examples.only(kept.items)


def _split(examples: Examples, test_share: float, left_out: Counter[str], notes: list[str]) -> Examples:
    """The same with the side of each: as given, or by content, near copies together."""
    if not examples.splits:
        keys = _near(examples, notes)
        tested = split_by_group(examples.digests, test_share, keys, examples.labels)
        sides: list[Split] = ["test" if test else "train" for test in tested]
        return examples._replace(splits=sides)
    known = {examples.digests[i] for i in _side(examples, "train")}
    again = sum(examples.digests[i] in known for i in _side(examples, "test"))
    if again:
        notes.append(f"{again:,} test images are training images too: the split was given, so they stay")
    return _trained(examples, left_out)


def _near(examples: Examples, notes: list[str]) -> Sequence[Sequence[Hashable]]:
    """What near copies share, by their brightness. Where most images are alike, as aligned ones may be, that says nothing, and they share nothing."""
    keys = near_copies(examples.images)
    group = groups(keys)
    copies = len(group) - len(set(group))
    largest = max(Counter(group).values(), default=0)
    if largest > len(group) / 2:
        notes.append(
            f"{largest:,} of {len(group):,} images are near copies of each other: too many to keep on one side"
        )
        return [()] * len(group)
    if copies:
        notes.append(
            f"{copies:,} of {len(group):,} images are near copies of others: each is on the side of those"
        )
    return keys


def _trained(examples: Examples, left_out: Counter[str]) -> Examples:
    """Without the test images of classes that training never sees."""
    if not examples.labels:
        return examples
    trained = {examples.labels[i] for i in _side(examples, "train")}
    kept = [i for i, label in enumerate(examples.labels) if label in trained]
    left_out["test images of classes without training images"] += len(examples.labels) - len(kept)
    return examples.only(kept)


def _side(examples: Examples, split: Split) -> list[int]:
    return [i for i, side in enumerate(examples.splits or ()) if side == split]


def _classes(examples: Examples) -> list[str]:
    """The classes by label, in the order of their smallest digests, so that a new name changes no label."""
    smallest: dict[str, bytes] = {}
    for label, content in zip(examples.labels or (), examples.digests, strict=False):
        smallest[label] = min(content, smallest.get(label, content))
    return sorted(smallest, key=smallest.__getitem__)


def _lost(found: Found, classes: list[str]) -> list[str]:
    return sorted({picture.label for picture in found.pictures if picture.label} - set(classes))


def _untested(examples: Examples, classes: list[str]) -> list[str]:
    tested = {examples.labels[i] for i in _side(examples, "test")} if examples.labels else set(classes)
    return sorted(set(classes) - tested)
