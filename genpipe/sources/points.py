"""Points out of a CSV or NumPy file."""

from collections.abc import Mapping
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genpipe.errors import BadInput
from genpipe.params.corpora import PointFiles
from genpipe.sources.prepared import Prepared
from genpipe.sources.split import content_order, digest, split_by_group

Side = tuple[NDArray[Any], NDArray[Any] | None]  # points [n, dim] and classes [n]


class Table(NamedTuple):
    """Rows of numbers, [n, dim], and their classes by name where there are some."""

    points: NDArray[np.float32]
    labels: list[str] | None


def prepare_points(source: Path, directory: Path, dataset: PointFiles) -> Prepared:
    """Write SPLIT_points.npy, float32 [n, dim], and SPLIT_labels.npy, uint8 [n], where a column holds classes."""
    table = _read(source, dataset.label)
    digests = [digest(point.tobytes()) for point in table.points]
    tested = split_by_group(digests, dataset.test_share, labels=table.labels)
    classes = sorted(set(table.labels or ()))
    labels = np.array([classes.index(label) for label in table.labels]) if table.labels else None
    order = content_order(digests)
    sides: dict[str, Side] = {}
    for split, test in (("train", False), ("test", True)):
        rows = list(compress(order, [tested[i] is test for i in order]))
        if not rows:
            raise BadInput(f"{source}: no point is left to {split}; add different points")
        sides[split] = table.points[rows], labels[rows] if labels is not None else None
    prepared = save_points(directory, sides, len(classes), {})
    return prepared._replace(classes=classes)


def save_points(
    directory: Path, sides: Mapping[str, Side], num_classes: int, left_out: Mapping[str, int]
) -> Prepared:
    """Write the arrays of each split."""
    counts: dict[str, int] = {}
    for split, (points, labels) in sides.items():
        arrays = {f"{split}_points.npy": points.astype(np.float32)}
        arrays |= {} if labels is None else {f"{split}_labels.npy": labels.astype(np.uint8)}
        for name, array in arrays.items():
            np.save(directory / name, array)
            counts[name] = len(array)
    facts = {"dim": sides["train"][0].shape[1]} | ({"num_classes": num_classes} if num_classes else {})
    return Prepared(tuple(sides), facts, counts, left_out)


def _read(source: Path, label: str | None) -> Table:
    if source.suffix == ".npy":
        return Table(_finite(source, np.asarray(_loaded(source))), None)
    if source.suffix != ".csv":
        raise BadInput(f"{source}: not a .csv or .npy file; name one as the source")
    try:
        frame = pl.read_csv(source)
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{source}: not a CSV file: {str(error).splitlines()[0]}; fix it") from None
    if label is not None and label not in frame.columns:
        raise BadInput(f"{source}: no column {label!r}; it has: {', '.join(frame.columns)}")
    names = frame[label].cast(pl.String).fill_null("").to_list() if label else None
    numbers = frame.drop(label) if label else frame
    texts = [name for name, kind in numbers.schema.items() if not kind.is_numeric()]
    if texts or not numbers.columns:
        raise BadInput(
            f"{source}: the column {texts[0] if texts else '-'} holds no numbers; remove it, or name it as label"
        )
    return Table(_finite(source, numbers.cast(pl.Float64).to_numpy()), names)


def _loaded(path: Path) -> NDArray[np.float64]:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BadInput(f"{path}: not a NumPy array ({error}); write it again with numpy.save") from None


def _finite(path: Path, points: NDArray[np.float64]) -> NDArray[np.float32]:
    if points.ndim != 2 or points.dtype.kind not in "iuf" or not len(points):
        raise BadInput(
            f"{path}: not a table of numbers, [rows, dim], but {points.dtype} {list(points.shape)}"
        )
    bad = np.flatnonzero(~np.isfinite(points.astype(np.float32)).all(1))
    if len(bad):
        raise BadInput(f"{path}: row {bad[0]} (from 0) holds a value that is missing or infinite; fix it")
    return points.astype(np.float32)
