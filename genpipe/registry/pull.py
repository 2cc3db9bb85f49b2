"""`genpipe pull`: the weights and the card of a version, just those bytes, from DVC's cache or remote."""

import hashlib
import json
from pathlib import Path

from genpipe.dvc_command import DvcFailed, dvc
from genpipe.errors import BadState, Unavailable
from genpipe.files import MODEL, new_directory, refuse_inputs
from genpipe.registry.lock import MODELS, read_lock


def pull(root: Path, model: str, commit: str, out: Path) -> None:
    """Write the model of a commit to `out`, whole or not at all; a directory that holds something else is refused."""
    weights = read_lock(root, commit).weights(model)
    if weights is None:
        raise BadState(f"{MODELS}/{model}: not in dvc.lock of {commit:.12}; see genpipe models")
    refuse_inputs(out, [root / ".git", root / ".dvc"])
    with new_directory(out.resolve(), MODEL) as partial:
        fetch(root, f"{MODELS}/{model}", commit, partial / "model")
        got = directory_md5(partial / "model")
        if got != weights:
            raise BadState(
                f"{MODELS}/{model}: DVC gave {got} instead of {weights}; its cache is damaged: remove that and fetch again"
            )
        for file in (partial / "model").iterdir():
            file.rename(partial / file.name)
        (partial / "model").rmdir()


def fetch(root: Path, path: str, commit: str, out: Path) -> None:
    """Write an output of a commit to `out`, from DVC's cache or remote."""
    try:
        dvc(root, "get", "--quiet", str(root), path, "--rev", commit, "--out", str(out.resolve()))
    except DvcFailed as error:
        raise Unavailable(
            f"{path} of {commit:.12}: neither in DVC's cache nor to be had from its remote: {error}"
        ) from None


def directory_md5(directory: Path) -> str:
    """The hash that DVC gives to a directory: MD5 over the list of its files and their MD5."""
    files = sorted(
        (path.relative_to(directory).as_posix(), path) for path in directory.rglob("*") if path.is_file()
    )
    entries = [{"md5": _md5(path), "relpath": name} for name, path in files]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
