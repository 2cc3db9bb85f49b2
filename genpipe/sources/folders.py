"""Which pictures a folder holds, of which class and which split; what else is in it is counted, never silently passed over.

`CLASS/picture`, `train/CLASS/picture` beside `test/CLASS/picture`, or pictures without classes; a class is the first folder, and
folders below it belong to it. A folder that holds everything is passed through. Validation pictures are for testing where there is
no test folder, and for training where there is one.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from genpipe.errors import BadInput
from genpipe.files import is_hidden

Split = Literal["train", "test"]
# Not all that Pillow opens: some plugins start other programs (EPS), some read formats that are no pictures (GRIB).
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}


class Picture(NamedTuple):
    """A file, its class if it lies in the folder of one, and its split if folders say it."""

    path: Path
    label: str | None
    split: Split | None


class Found(NamedTuple):
    """The pictures of a folder by name, and what is to be reported."""

    pictures: list[Picture]
    left_out: Counter[str]
    notes: list[str]


def find_pictures(source: Path) -> Found:
    """Every picture below `source`. Raises BadInput where there is none, and where folders contradict each other."""
    left_out: Counter[str] = Counter()
    readable = suffixes()
    names: list[Path] = []
    barren: set[Path] = set()
    for path in _files(source, left_out):
        reason = _unreadable(source / path, readable)
        if reason:
            left_out[reason] += 1
            barren.add(path.parent)
        else:
            names.append(path)
    if not names:
        seen = "".join(f"; left out {n:,}: {reason}" for reason, n in sorted(left_out.items()))
        raise BadInput(
            f"{source}: no pictures found; put {', '.join(FORMATS)} files there, in a sub-folder for each class{seen}"
        )
    barren -= {parent for path in names for parent in path.parents}
    notes = [f"{folder}/: no file in it can be read" for folder in sorted(barren)]
    places = _without_wrapper([(path, path.parts[:-1]) for path in sorted(names)], notes)
    roles = _split_folders(source, places)
    pictures = [_picture(source, path, folders, roles) for path, folders in places]
    notes += _notes(pictures, places, roles)
    _check_classes(source, pictures)
    return Found(pictures, left_out, notes)


def suffixes() -> set[str]:
    """The endings of the names of the picture files that can be read."""
    known = Image.registered_extensions()
    return {suffix for suffix, kind in known.items() if kind in FORMATS and kind in Image.OPEN}


def _files(source: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Files below `source`, relative to it; links to folders are refused, so a walk always ends."""
    for directory, folders, files in os.walk(source):
        here = Path(directory)
        for name in folders:
            if (here / name).is_symlink() and not is_hidden(Path(name)):
                # DVC hashes no file behind such a link, so a change there would go unseen.
                raise BadInput(
                    f"{here / name}: a link to a folder, which DVC does not track; copy the folder there, "
                    "or hide the link (a name that begins with a dot)"
                )
        left_out["hidden folders"] += sum(is_hidden(Path(name)) for name in folders)
        left_out["hidden files"] += sum(is_hidden(Path(name)) for name in files)
        folders[:] = [name for name in folders if not is_hidden(Path(name))]
        yield from (here.relative_to(source) / name for name in files if not is_hidden(Path(name)))


def _unreadable(path: Path, readable: set[str]) -> str:
    """Why a file is left out; "" where it is read."""
    suffix = path.suffix.lower()
    if suffix not in readable:
        return f"{suffix} files" if suffix else "files without a suffix"
    return "" if path.is_file() else "broken links"


Places = list[tuple[Path, tuple[str, ...]]]  # a file, and the folders that give it a meaning


def _without_wrapper(places: Places, notes: list[str]) -> Places:
    """The same without a first folder that says nothing: it holds everything, and folders in it hold the pictures."""
    first = {folders[:1] for _, folders in places}
    (name,) = first if len(first) == 1 else ((),)
    if not name or not (name[0].casefold() in SPLITS or all(len(folders) > 1 for _, folders in places)):
        return places
    notes.append(f"{name[0]}/ holds everything, so it is neither a class nor a split")
    return _without_wrapper([(path, folders[1:]) for path, folders in places], notes)


def _split_folders(source: Path, places: Places) -> dict[str, Split]:
    """What the first folders are splits of; empty where they are classes, or there are none."""
    first = {folders[0] if folders else "" for _, folders in places}
    kinds = {SPLITS.get(name.casefold()) for name in first}
    if not ("train" in kinds and kinds & {"test", "validation"}):
        return {}
    if None in kinds:
        if kinds == {"train", "validation", None}:  # classes may well have such names
            return {}
        other = min(name for name in first if name.casefold() not in SPLITS)
        raise BadInput(
            f"{source / other}: stands beside train and test folders; move it into one of them, or out of {source}"
        )
    held: Split = "train" if "test" in kinds else "test"
    roles: dict[str, Split] = {"train": "train", "test": "test", "validation": held}
    return {name: roles[SPLITS[name.casefold()]] for name in first}


def _picture(source: Path, path: Path, folders: tuple[str, ...], roles: dict[str, Split]) -> Picture:
    split = roles[folders[0]] if roles else None
    classes = folders[1:] if roles else folders
    return Picture(source / path, classes[0] if classes else None, split)


def _notes(pictures: list[Picture], places: Places, roles: dict[str, Split]) -> Iterator[str]:
    for side in ("train", "test") if roles else ():
        names = sorted(name for name, role in roles.items() if role == side)
        yield f"{', '.join(f'{name}/' for name in names)} is the {side} split, as given"
    deeper = sum(len(folders) > 1 + bool(roles) for _, folders in places)
    if deeper:
        yield f"{deeper:,} of {len(pictures):,} images lie in folders below that of their class, which is the first one"


def _check_classes(source: Path, pictures: list[Picture]) -> None:
    """Raise BadInput where some images have a class and some have none, or where there are too many classes."""
    labels = {picture.label for picture in pictures}
    if None in labels and len(labels) > 1:
        loose = next(picture for picture in pictures if picture.label is None)
        raise BadInput(f"{loose.path}: outside the folder of a class, while other images are in one; move it")
    if len(labels) > 256:
        raise BadInput(f"{source}: {len(labels)} folders of classes; at most 256 are possible, merge some")
