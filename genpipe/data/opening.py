"""Opens what a recipe trains on, by the kind that its data.json names."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from genpipe.data.captions import Captions
from genpipe.data.groups import Groups
from genpipe.data.images import Images
from genpipe.data.loader import Data
from genpipe.data.pairs import Pairs
from genpipe.data.passages import Passages
from genpipe.data.points import Points
from genpipe.data.stream import Stream
from genpipe.data.tagged import Tagged
from genpipe.data.trajectory import Trajectory
from genpipe.errors import BadInput
from genpipe.files import existing, read_description

# Written out, row by row: the code that a stage depends on is read from here.
KINDS: dict[str, Callable[..., Data]] = {
    "images": Images,
    "points": Points,
    "trajectory": Trajectory,
    "stream": Stream,
    "pairs": Pairs,
    "passages": Passages,
    "groups": Groups,
    "tagged": Tagged,
    "captions": Captions,
}
USUAL: Mapping[str, Any] = MappingProxyType({})


def open_data(directory: Path, batches: Mapping[str, Any] = USUAL) -> Data:
    """The data in a directory that `genpipe prepare` or `genpipe encode` wrote; `batches` says how batches are made."""
    existing(directory, "run the stage that makes it (genpipe plan names it)")
    kind = read_description(directory)["kind"]
    if kind not in KINDS:
        raise BadInput(
            f"{directory}: data of the kind {kind!r} cannot be trained on, only of the kinds {', '.join(KINDS)}; "
            "text is encoded first (encodings in params.yaml), and recipes.*.data names encoded/…"
        )
    options = {key: _checked(kind, key, value) for key, value in batches.items()}
    return KINDS[kind](directory, **options)


def require_whole_groups(data: Data, batch_size: int, logical_workers: int) -> None:
    """Raise BadInput where a slice of a batch would cut rows apart that belong together."""
    if batch_size // logical_workers % data.rows_together:
        unit = data.rows_together * logical_workers
        raise BadInput(
            f"train.batch_size: {batch_size} in {logical_workers} slices would cut groups of {data.rows_together} rows "
            f"apart; take {-(-batch_size // unit) * unit}"
        )


def require_test(data: Data) -> None:
    """Raise BadInput where there is nothing to judge a model on."""
    if "test" not in data.splits:
        raise BadInput(
            f"no split 'test' to judge a model on, it has: {', '.join(data.splits)}; set datasets.*.test_share, or add "
            "a file of that name to the source"
        )


def _checked(kind: str, key: str, value: Any) -> Any:
    """The value of an option of a kind, of the type that its constructor says."""
    options = dict(list(inspect.signature(KINDS[kind]).parameters.items())[1:])
    if key not in options:
        names = ", ".join(options) or "no options"
        raise BadInput(f"train.batches.{key}: not an option of the kind {kind}, which takes: {names}")
    try:
        return TypeAdapter(options[key].annotation).validate_python(value)
    except ValidationError as error:
        raise BadInput(f"train.batches.{key}: {error.errors()[0]['msg']}, not {value!r}") from None
