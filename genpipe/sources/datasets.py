"""`genpipe prepare`: a data set of params.yaml out of raw data, as plain files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from genpipe.errors import BadInput
from genpipe.files import TABLES, existing, hash_of, new_directory, refuse_inputs, write_json
from genpipe.params.corpora import Dataset
from genpipe.params.project import described
from genpipe.sources.biographies import prepare_biographies
from genpipe.sources.checkpoints import prepare_checkpoint
from genpipe.sources.couplets import prepare_couplets
from genpipe.sources.emoji import prepare_emoji
from genpipe.sources.emoji_names import prepare_emoji_names
from genpipe.sources.glyphs import prepare_glyphs
from genpipe.sources.grouped_text import prepare_grouped_text
from genpipe.sources.hugging_face import prepare_hugging_face
from genpipe.sources.hugging_face_text import prepare_hugging_face_text
from genpipe.sources.images import prepare_digits, prepare_image_folder
from genpipe.sources.labelled_text import prepare_labelled_text
from genpipe.sources.networks import prepare_feature_network
from genpipe.sources.poems import prepare_poems
from genpipe.sources.points import prepare_points
from genpipe.sources.prepared import Prepared
from genpipe.sources.records import prepare_records
from genpipe.sources.segmented import prepare_segmented
from genpipe.sources.squad import prepare_squad
from genpipe.sources.text import prepare_text
from genpipe.sources.titles import prepare_titles
from genpipe.sources.toys import prepare_toys
from genpipe.sources.trajectories import prepare_equation, prepare_table
from genpipe.sources.verses import prepare_verses


class Kind(NamedTuple):
    """What a kind of source becomes, as data.json names it, and the function that makes it: (source, directory, block)."""

    makes: Literal["images", "points", "trajectory", "text", "network", "weights"]
    prepare: Callable[[Path, Path, Any], Prepared]


# Written out, row by row: the code that a stage depends on is read from here.
KINDS: dict[str, Kind] = {
    "digits": Kind("images", prepare_digits),
    "image_folder": Kind("images", prepare_image_folder),
    "hugging_face": Kind("images", prepare_hugging_face),
    "glyphs": Kind("images", prepare_glyphs),
    "emoji": Kind("images", prepare_emoji),
    "emoji_names": Kind("text", prepare_emoji_names),
    "feature_network": Kind("network", prepare_feature_network),
    "checkpoint": Kind("weights", prepare_checkpoint),
    "toys": Kind("points", prepare_toys),
    "points": Kind("points", prepare_points),
    "equation": Kind("trajectory", prepare_equation),
    "trajectory": Kind("trajectory", prepare_table),
    "text": Kind("text", prepare_text),
    "poems": Kind("text", prepare_poems),
    "records": Kind("text", prepare_records),
    "couplets": Kind("text", prepare_couplets),
    "titles": Kind("text", prepare_titles),
    "verses": Kind("text", prepare_verses),
    "biographies": Kind("text", prepare_biographies),
    "labelled_text": Kind("text", prepare_labelled_text),
    "segmented": Kind("text", prepare_segmented),
    "grouped_text": Kind("text", prepare_grouped_text),
    "squad": Kind("text", prepare_squad),
    "hugging_face_text": Kind("text", prepare_hugging_face_text),
}


def prepare(root: Path, name: str, dataset: Dataset) -> None:
    """Write artifacts/datasets/NAME, whole or not at all; the same source gives the same bytes."""
    source = existing(
        root / dataset.source, f"run `genpipe data`, or fix datasets.{name}.source in params.yaml"
    )
    prepared = _write(root, source, root / "artifacts" / "datasets" / name, dataset)
    for line in prepared.lines():
        print(f"artifacts/datasets/{name}: {line}")


def prepare_from(source: Path, out: Path, options: Mapping[str, Any]) -> Prepared:
    """Write what `prepare` would, from raw data anywhere into a directory anywhere; `options` are the keys of a block.

    Raises BadInput where an option is not valid.
    """
    existing(source, "name a file or a folder")
    try:
        # of the source the name alone is kept: the same data gives the same bytes wherever it lies
        dataset = TypeAdapter[Dataset](Dataset).validate_python({**options, "source": source.name})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"{key}: " for key in first["loc"][1:])
        raise BadInput(f"{where}{described(first)}") from None
    return _write(source.parent, source, out, dataset)


def _write(root: Path, source: Path, out: Path, dataset: Dataset) -> Prepared:
    refuse_inputs(out, [source])
    with new_directory(out, TABLES) as directory:
        kind = KINDS[dataset.kind]
        prepared = kind.prepare(source, directory, dataset)
        origin = {"kind": dataset.kind, "source": dataset.source, "sha256": hash_of([source], root)}
        write_json(directory / "data.json", prepared.description(kind.makes))
        write_json(directory / "source.json", origin | prepared.record())
    return prepared
