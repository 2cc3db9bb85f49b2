"""`genpipe prepare`: a data set of params.yaml out of raw data, as plain files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from genpipe.files import TABLES, existing, hash_of, new_directory, refuse_inputs, write_json
from genpipe.params.corpora import Dataset
from genpipe.sources.couplets import prepare_couplets
from genpipe.sources.images import prepare_digits, prepare_image_folder
from genpipe.sources.poems import prepare_poems
from genpipe.sources.points import prepare_points
from genpipe.sources.prepared import Prepared
from genpipe.sources.text import prepare_text
from genpipe.sources.toys import prepare_toys

KINDS: dict[str, Callable[[Path, Path, Any], Prepared]] = {
    "digits": prepare_digits,
    "image_folder": prepare_image_folder,
    "toys": prepare_toys,
    "points": prepare_points,
    "text": prepare_text,
    "poems": prepare_poems,
    "couplets": prepare_couplets,
}


def prepare(root: Path, name: str, dataset: Dataset) -> None:
    """Write artifacts/datasets/NAME, whole or not at all; the same source gives the same bytes."""
    source = existing(
        root / dataset.source, f"run `genpipe data`, or fix datasets.{name}.source in params.yaml"
    )
    out = root / "artifacts" / "datasets" / name
    refuse_inputs(out, [source])
    with new_directory(out, TABLES) as directory:
        prepared = KINDS[dataset.kind](source, directory, dataset)
        origin = {"kind": dataset.kind, "source": dataset.source, "sha256": hash_of([source], root)}
        write_json(directory / "data.json", prepared.description())
        write_json(directory / "source.json", origin | prepared.record())
    for line in prepared.lines():
        print(f"artifacts/datasets/{name}: {line}")
