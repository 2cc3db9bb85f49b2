"""Images as a data set: distinct, split by content, written in the order of their contents.

No array depends on the names of files and classes: rows, sides and the numbers of classes follow from the pixels.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpipe.errors import BadInput
from genpipe.sources.folders import Split
from genpipe.sources.near import near_copies
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import content_order, digest, distinct, groups, split_by_group

SPLITS: tuple[Split, Split] = ("train", "test")


class Examples(NamedTuple):
    """Images uint8 [n, channels, size, size], and what is known of each."""

    images: NDArray[np.uint8]
    labels: Sequence[str] | None = None
    splits: Sequence[Split] | None = None  # where they are given
    subjects: Sequence[Hashable] | None = None  # images of one subject are on one side

    def only(self, rows: Sequence[int]) -> "Examples":
        """Some of them, in the order of `rows`."""
        return Examples(
            self.images[list(rows)],
            [self.labels[i] for i in rows] if self.labels else None,
            [self.splits[i] for i in rows] if self.splits else None,
            [self.subjects[i] for i in rows] if self.subjects else None,
        )

    def digests(self) -> list[bytes]:
        """The content of each."""
        return digests_of(self.images)

    def side(self, split: Split) -> list[int]:
        """The numbers of those of a split."""
        return [i for i, side in enumerate(self.splits or ()) if side == split]


def digests_of(images: NDArray[np.uint8]) -> list[bytes]:
    """The content of each image."""
    return [digest(image.tobytes()) for image in images]


def facts_of(train: NDArray[np.uint8], num_classes: int) -> dict[str, Any]:
    """What models are built from."""
    facts = {"image_shape": list(train.shape[1:]), "num_images": len(train)}
    return facts | ({"num_classes": num_classes} if num_classes else {})


def save_images(
    directory: Path, split: Split, images: NDArray[np.uint8], labels: NDArray[np.uint8] | None
) -> dict[str, int]:
    """Write the rows in the order of their contents: any stretch of them is a fair sample of all."""
    order = content_order(digests_of(images))
    arrays = {f"{split}_images.npy": images} | ({} if labels is None else {f"{split}_labels.npy": labels})
    for name, array in arrays.items():
        np.save(directory / name, np.ascontiguousarray(array[order]))
    return {name: len(array) for name, array in arrays.items()}


def write_examples(
    source: Path,
    directory: Path,
    found: Examples,
    test_share: float,
    left_out: Counter[str],
    notes: list[str],
) -> Prepared:
    """Write images and, where there are classes, labels of both splits; what is left out is added to the counts.

    Raises BadInput where a side would be empty.
    """
    examples = _split(_distinct(found, left_out), test_share, left_out, notes)
    sides: dict[Split, Examples] = {split: examples.only(examples.side(split)) for split in SPLITS}
    if not all(len(side.images) for side in sides.values()):
        why = "".join(f"; {line}" for line in Prepared(SPLITS, {}, {}, left_out, notes).lines()[1:])
        raise BadInput(
            f"{source}: {len(sides['train'].images)} images to train and {len(sides['test'].images)} to test; "
            f"add images, at least two different ones of a class{why}"
        )
    classes = _classes(examples)
    notes += [f"class {name}: no image is left" for name in sorted({*(found.labels or ())} - {*classes})]
    notes += [f"class {name}: no image to test" for name in _untested(sides["test"], classes)]
    counts: dict[str, int] = {}
    for split, side in sides.items():
        labels = np.array([classes.index(label) for label in side.labels], np.uint8) if side.labels else None
        counts |= save_images(directory, split, side.images, labels)
    facts = facts_of(sides["train"].images, len(classes)) | ({"classes": classes} if classes else {})
    return Prepared(SPLITS, facts, counts, left_out, notes, classes)


def _distinct(examples: Examples, left_out: Counter[str]) -> Examples:
    """One image for each content; with given splits, one for each content and split."""
    keys = examples.digests()
    if examples.splits:
        keys = [split.encode() + content for split, content in zip(examples.splits, keys, strict=True)]
    kept = distinct(keys, examples.labels)
    left_out["copies of another image"] += kept.copies
    left_out["images under two or more classes, with their copies"] += kept.contradicting
    return examples.only(kept.items)


def _split(examples: Examples, test_share: float, left_out: Counter[str], notes: list[str]) -> Examples:
    """The same with the side of each: as given, or by content, near copies and images of one subject together."""
    if not examples.splits:
        near = _near(examples, notes)
        own = [(("subject", subject),) for subject in examples.subjects or ()] or [()] * len(near)
        keys = [(*copies, *subject) for copies, subject in zip(near, own, strict=True)]
        tested = split_by_group(examples.digests(), test_share, keys, examples.labels)
        return examples._replace(splits=["test" if test else "train" for test in tested])
    digests = examples.digests()
    known = {digests[i] for i in examples.side("train")}
    again = sum(digests[i] in known for i in examples.side("test"))
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
    trained = {examples.labels[i] for i in examples.side("train")}
    kept = [i for i, label in enumerate(examples.labels) if label in trained]
    left_out["test images of classes without training images"] += len(examples.labels) - len(kept)
    return examples.only(kept)


def _classes(examples: Examples) -> list[str]:
    """The classes by label, in the order of their smallest digests, so that a new name changes no label."""
    smallest: dict[str, bytes] = {}
    for label, content in zip(examples.labels or (), examples.digests(), strict=False):
        smallest[label] = min(content, smallest.get(label, content))
    return sorted(smallest, key=smallest.__getitem__)


def _untested(tested: Examples, classes: list[str]) -> list[str]:
    return sorted({*classes} - {*(tested.labels or ())})
