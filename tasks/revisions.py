"""The raw data of another revision under the current code and parameters."""

from pathlib import Path, PurePath
from typing import Any

from genpipe import yaml_text
from genpipe.errors import BadInput, BadState
from genpipe.git import files_at, files_of, show
from genpipe.params.project import check_params
from tasks.workspace import Contents

PARAMS = "params.yaml"


def contents_at(root: Path, commit: str, targets: tuple[str, ...]) -> Contents:
    """A workspace with what the commit says of raw data: its `datasets` block, its .dvc files, and tracked sources."""
    datasets = _datasets_at(root, commit)
    params = {**yaml_text.read(root / PARAMS), "datasets": datasets}
    check_params(params)
    sources = sorted({dataset["source"] for dataset in datasets.values()})
    pins = tuple(name for name in files_at(root, commit) if PurePath(name).suffix == ".dvc")
    names = [*pins, *files_at(root, commit, *sources)]
    files = {name: _content(root, commit, name) for name in names}
    files[PARAMS] = yaml_text.dump(params).encode()
    pins_now = (name for name in files_of(root) if PurePath(name).suffix == ".dvc")
    return Contents(files, targets, without=(*sources, *pins_now), pins=pins)


def _content(root: Path, commit: str, name: str) -> bytes:
    content = show(root, commit, name)
    if content is None:
        raise BadState(f"{name}: Git has it in that commit and cannot read it; git fsck tells what is lost")
    return content


def _datasets_at(root: Path, commit: str) -> dict[str, Any]:
    text = show(root, commit, PARAMS)
    if text is None:
        raise BadInput(f"no {PARAMS} there; name a revision of this project")
    try:
        datasets = yaml_text.parse(text, PARAMS)["datasets"]
    except (BadInput, KeyError, TypeError):
        raise BadInput(f"{PARAMS} has no datasets there; name a later revision") from None
    if not isinstance(datasets, dict):
        raise BadInput(f"{PARAMS}: datasets: must be a block there, not {datasets!r}; name another revision")
    return datasets
