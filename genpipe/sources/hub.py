"""The files of a data set of Hugging Face's Hub at one commit, as they are; nothing of it is run."""

import shutil
from pathlib import Path

from genpipe.errors import BadInput, Unavailable
from genpipe.files import new_directory, read_json, refuse_inputs, write_json
from genpipe.params.corpora import Hub
from genpipe.progress import tell

# pictures, tables of them, and what says what they are: no scripts, no pickles
FORMATS = ("parquet", "arrow", "csv", "jsonl", "jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
PATTERNS = tuple(f"*.{suffix}" for suffix in (*FORMATS, *(suffix.upper() for suffix in FORMATS)))
FETCHED = "hub.json"  # in the folder: what it is


def fetch_from_hub(root: Path, dataset: Hub, force: bool) -> None:
    """Write the folder `source` where it is missing, is of another commit, or if `force`.

    Raises BadInput where the folder was not fetched from the Hub, or the Hub has no such data set, Unavailable where the
    Hub cannot be reached.
    """
    target = root / dataset.source
    wanted = {"name": dataset.name, "revision": dataset.revision, "files": list(dataset.files)}
    if target.exists():
        if not (target / FETCHED).is_file():
            raise BadInput(
                f"{target}: not fetched from the Hub, so it is left alone; take name and revision out of the block, or move it"
            )
        if not force and read_json(target / FETCHED) == wanted:
            print(f"{dataset.source}: complete")
            return
    refuse_inputs(target, [root / "params.yaml"])
    tell(f"{dataset.name}: fetching it from the Hub")
    with new_directory(target) as directory:
        _download(dataset, directory)
        write_json(directory / FETCHED, wanted)
    print(f"{dataset.source}: {dataset.name} at {dataset.revision}")


def _download(dataset: Hub, directory: Path) -> None:
    from huggingface_hub import snapshot_download  # takes half a second
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # what fails is said below, in one line
    where = f"{dataset.name} at {dataset.revision}"
    try:
        snapshot_download(
            str(dataset.name),
            repo_type="dataset",
            revision=dataset.revision,
            local_dir=directory,
            allow_patterns=list(dataset.files or PATTERNS),
            ignore_patterns=["*.py", "*.pkl", "*.pickle"],
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise BadInput(
            f"{where}: the Hub has no such data set for you: {_line(error)}; see to the name, the revision and HF_TOKEN"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise Unavailable(
            f"{where}: it cannot be fetched from the Hub: {_line(error)}; try again with a network, or put the data set on "
            f"disk at {dataset.source} and take name and revision out of the block"
        ) from None
    shutil.rmtree(directory / ".cache", ignore_errors=True)  # what the client remembers of the download
    if not any(directory.iterdir()):
        raise BadInput(f"{where}: no file of a known format in it; name files in the block")


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
