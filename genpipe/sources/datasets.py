"""`genpipe prepare`: a data set of params.yaml out of raw data, as plain files."""

from pathlib import Path
from typing import Any

from genpipe.files import existing, hash_of, new_directory, write_json
from genpipe.params.corpora import Dataset
from genpipe.sources.couplets import prepare_couplets
from genpipe.sources.images import prepare_digits, prepare_image_folder
from genpipe.sources.poems import prepare_poems
from genpipe.sources.text import prepare_text


def prepare(root: Path, name: str, dataset: Dataset) -> None:
    """Write artifacts/datasets/NAME, whole or not at all; the same source gives the same bytes."""
    source = existing(
        root / dataset.source, f"run `genpipe data`, or mend datasets.{name}.source in params.yaml"
    )
    with new_directory(root / "artifacts" / "datasets" / name) as directory:
        written = _write(source, directory, dataset)
        origin = {"kind": dataset.kind, "source": dataset.source, "sha256": hash_of([source], root)}
        write_json(directory / "source.json", origin | written)
    counts = ", ".join(f"{number:,} in {file}" for file, number in written["counts"].items())
    print(f"artifacts/datasets/{name}: {counts}")


def _write(source: Path, directory: Path, dataset: Dataset) -> dict[str, Any]:
    if dataset.kind == "image_folder":
        counts, classes = prepare_image_folder(source, directory, dataset)
        return {"counts": counts} | ({"classes": classes} if classes else {})
    kinds = {
        "digits": prepare_digits,
        "text": prepare_text,
        "poems": prepare_poems,
        "couplets": prepare_couplets,
    }
    return {"counts": kinds[dataset.kind](source, directory, dataset)}
