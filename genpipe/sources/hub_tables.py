"""The splits of a data set in a format of Hugging Face's `datasets`, on disk; no code of a data set is ever run.

The reader is chosen here from what lies there, so neither a name nor a script in the folder chooses it.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from genpipe.errors import BadInput
from genpipe.files import is_hidden
from genpipe.sources.folders import SPLITS, Split

BINARY: Mapping[str, str] = {".parquet": "parquet", ".arrow": "arrow"}  # suffix -> reader of `datasets`


@contextlib.contextmanager
def opened(
    source: Path, readers: Mapping[str, str] = BINARY, otherwise: str | None = "imagefolder"
) -> Iterator[Mapping[str, Any]]:
    """The splits of a data set, each a `datasets.Dataset`, by name.

    `readers` are tried in their order, each for files of its suffix; `otherwise` reads a folder without such files.
    """
    import datasets  # takes a second
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    # a copy that `datasets` makes is not kept: it knows files by name and time, and would give old rows for new ones
    with tempfile.TemporaryDirectory() as cache:
        try:
            found = _load(source, cache, readers, otherwise)
        except (OSError, ValueError, IndexError, RuntimeError, pa.ArrowException, DatasetsError) as error:  # fmt: skip
            reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
            raise BadInput(
                f"{source}: not a data set that can be read: {reason}; write it again with save_to_disk"
            ) from None
        yield found if isinstance(found, dict) else {"train": found}


def _load(source: Path, cache: str, readers: Mapping[str, str], otherwise: str | None) -> Any:
    from datasets import load_dataset, load_from_disk

    if (source / "dataset_dict.json").is_file() or (source / "state.json").is_file():
        return load_from_disk(str(source))
    if not source.is_dir():
        raise BadInput(f"{source}: a file; name the folder of a data set")
    names = [path for path in source.rglob("*") if path.is_file() and not is_hidden(path.relative_to(source))]
    for suffix, reader in readers.items():
        if files := [path for path in names if path.suffix == suffix and path.stem != "metadata"]:
            by_split = _by_split(source, files)
            return load_dataset(reader, data_files=by_split, cache_dir=cache)
    if otherwise is None:
        raise BadInput(f"{source}: no file of a format that is read: {', '.join(readers)}; put one there")
    return load_dataset(otherwise, data_dir=str(source), cache_dir=cache)


def _by_split(source: Path, files: list[Path]) -> dict[str, list[str]]:
    """The files of each split: the name of a split is a word of the name of the file, or that of a folder above it."""
    found: dict[str, list[str]] = {}
    for path in sorted(files):
        words = [*path.relative_to(source).parent.parts, *path.stem.replace("_", "-").split("-")]
        named = [word.casefold() for word in words if word.casefold() in SPLITS]
        found.setdefault(named[-1] if named else "train", []).append(str(path))
    return found


def roles_of(source: Path, names: set[str]) -> dict[str, Split]:
    """What each split is for; empty where there is one, which is then split by content."""
    if len(names) == 1:
        return {}
    kinds = {name: SPLITS.get(name.casefold()) for name in names}
    others = sorted(name for name, kind in kinds.items() if kind is None)
    if others or "train" not in kinds.values():
        raise BadInput(
            f"{source}: its splits are {', '.join(sorted(names))}; keep those to train and to test with these names, or one alone"
        )
    held: Split = "train" if "test" in kinds.values() else "test"
    return {name: held if kind == "validation" else kind for name, kind in kinds.items()}  # pyright: ignore[reportReturnType]
