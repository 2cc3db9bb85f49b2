"""A data set of images in a format of Hugging Face's `datasets`, on disk; no code of a data set is ever run.

What is read: what `save_to_disk` wrote, Parquet or Arrow files whose names say their splits, or a folder of pictures with a
metadata file. The reader is chosen here from what lies there, so neither a name nor a script in the folder chooses it.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genpipe.errors import BadInput
from genpipe.params.corpora import HuggingFace
from genpipe.sources.examples import Examples, write_examples
from genpipe.sources.folders import Split
from genpipe.sources.hub_tables import opened, roles_of
from genpipe.sources.pictures import pixels_of
from genpipe.sources.pixels import Encoded, Picture
from genpipe.sources.prepared import Prepared

MOST_CLASSES = 256  # labels are bytes


class Row(NamedTuple):
    """A picture, its class if there are classes, and the split that it is in."""

    picture: Picture
    label: str | None
    split: str


def prepare_hugging_face(source: Path, directory: Path, dataset: HuggingFace) -> Prepared:
    """Write images [n, channels, size, size] and, where there is a column of classes, labels [n]."""
    left_out: Counter[str] = Counter()
    with opened(source) as splits:
        rows, notes = _rows(source, splits, dataset, left_out)
    if not rows:
        raise BadInput(f"{source}: no row with an image; name another column as image")
    roles = roles_of(source, {row.split for row in rows})
    images, losses = pixels_of([row.picture for row in rows], dataset.image_size, dataset.colour)
    labels = [row.label for row in rows if row.label is not None]
    if len({*labels}) > MOST_CLASSES:
        raise BadInput(f"{source}: {len({*labels})} classes, and at most {MOST_CLASSES} are possible; set label: none")  # fmt: skip
    given: list[Split] | None = [roles[row.split] for row in rows] if roles else None
    found = Examples(images, labels or None, given)
    return write_examples(source, directory, found, dataset.test_share, left_out, [*notes, *losses])


def _rows(
    source: Path, splits: Mapping[str, Any], dataset: HuggingFace, left_out: Counter[str]
) -> tuple[list[Row], list[str]]:
    """All rows with an image and, where there are classes, a class; and which columns were taken."""
    from datasets import Image

    first = next(iter(splits.values()))
    image = _image_column(source, first.features, dataset.image)
    label = _label_column(source, first.features, dataset.label)
    rows: list[Row] = []
    for name, table in splits.items():
        if image not in table.column_names or (label and label not in table.column_names):
            raise BadInput(f"{source}: the split {name} has no column {image} or {label}; its columns are {', '.join(table.column_names)}")  # fmt: skip
        columns = table.select_columns([image, *([label] if label else [])])
        for number, row in enumerate(columns.cast_column(image, Image(decode=False))):
            picture = _picture(source, f"{name}[{number}]", row[image])
            text = _class_name(table.features[label], row[label]) if label else None
            if picture is None or (label and text is None):
                left_out["rows without an image" if picture is None else "rows without a class"] += 1
            else:
                rows.append(Row(picture, text, name))
    others = [name for name in next(iter(splits.values())).column_names if name not in (image, label)]
    left = f"; other columns: {', '.join(others)}" if others else ""
    return rows, [f"images of the column {image}, {f'classes of {label}' if label else 'no classes'}{left}"]


def _image_column(source: Path, features: Mapping[str, Any], given: str | None) -> str:
    from datasets import Image

    found = [name for name, kind in features.items() if isinstance(kind, Image)]
    if given is not None:
        if given not in features:
            raise BadInput(f"{source}: no column {given!r}; it has: {', '.join(features)}")
        return given
    if len(found) != 1:
        what = f"several columns of images: {', '.join(found)}" if found else f"no column of images among {', '.join(features)}"  # fmt: skip
        raise BadInput(f"{source}: {what}; name one as image in the block")
    return found[0]


def _label_column(source: Path, features: Mapping[str, Any], given: str) -> str | None:
    from datasets import ClassLabel, Value

    if given == "none":
        return None
    if given != "auto":
        if given not in features:
            raise BadInput(f"{source}: no column {given!r}; it has: {', '.join(features)}")
        kind = features[given]
        if not isinstance(kind, ClassLabel) and not (isinstance(kind, Value) and "float" not in kind.dtype):
            raise BadInput(f"{source}: the column {given} holds no classes but {kind}; name another column")
        return given
    found = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    if len(found) > 1:
        raise BadInput(
            f"{source}: several columns of classes: {', '.join(found)}; name one as label, or set label: none"
        )
    return found[0] if found else None


def _class_name(kind: Any, value: Any) -> str | None:
    """The name of a class; None for a row without one, which the Hub writes as -1."""
    names = getattr(kind, "names", None)
    if value is None or (names is not None and value < 0):
        return None
    return str(value) if names is None else names[value]


def _picture(source: Path, place: str, value: Any) -> Picture | None:
    """The encoded picture of a row. Raises BadInput where it names a file outside the data set."""
    if not value or (value.get("bytes") is None and not value.get("path")):
        return None
    if value.get("bytes") is not None:
        return Encoded(f"{source}: {place}", value["bytes"])
    path = Path(value["path"])
    if not path.resolve().is_relative_to(source.resolve()):
        raise BadInput(
            f"{source}: {place} is the file {path}, outside the data set; write it again with save_to_disk, which takes "
            "pictures in"
        )
    return path
