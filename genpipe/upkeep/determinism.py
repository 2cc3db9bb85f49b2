"""Whether a stage gives the same bytes twice: run twice in a copy of the project, the files compared."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configobj import ConfigObj

from genpipe import yaml_text
from genpipe.dvc_command import DvcFailed, dvc
from genpipe.errors import BadInput, BadState, WorkFailed
from genpipe.files import sha256
from genpipe.git import files_of
from genpipe.graph import read_plan
from genpipe.progress import tell


def differences(root: Path, stage: str) -> list[str]:
    """The files of a stage that two runs of it made differently, in order; nothing where it is deterministic."""
    names = [known.name for known in read_plan(root).stages]
    if stage not in names:
        raise BadInput(f"no stage {stage!r} in dvc.yaml; it has: {', '.join(names)}")
    with _copy(root, stage) as copy:
        first, second = (_run(copy, stage, number) for number in (1, 2))
    if not first:
        raise BadInput(f"{stage} made no file, so there is nothing to compare; does it have outs?")
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


@contextlib.contextmanager
def _copy(root: Path, stage: str) -> Iterator[Path]:
    """The tracked files of the project, with what the stage needs out of the cache, which is only read."""
    copy = root / ".genpipe" / "determinism" / f"{stage.replace('/', '_')}-{os.getpid()}"
    try:
        for name in files_of(root, with_new=True):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
        cache = dvc(root, "cache", "dir").strip()
        settings: Any = ConfigObj(encoding="utf-8")  # it quotes what a path may hold
        settings.merge({"core": {"no_scm": "true", "analytics": "false"}, "cache": {"dir": cache}})
        (copy / ".dvc").mkdir(exist_ok=True)
        with (copy / ".dvc" / "config.local").open("wb") as file:
            settings.write(file)
        _checkout(copy, stage)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _checkout(copy: Path, stage: str) -> None:
    try:
        dvc(copy, "checkout", "--with-deps", stage)  # out of the cache alone, never from a remote
    except DvcFailed as error:
        raise BadState(f"{error}; bring the project up to date first") from None


def _run(copy: Path, stage: str, number: int) -> dict[str, str]:
    """Run the stage anew, as if never before: the hash of each file it made."""
    tell(f"{stage}: run {number} of 2")
    shutil.rmtree(copy / ".genpipe", ignore_errors=True)  # a finished training would only be exported again
    try:
        dvc(copy, "repro", "--force", "--single-item", "--no-commit", "--no-run-cache", stage)
    except DvcFailed as error:
        raise WorkFailed(f"{stage}: run {number} of 2 failed: {error}; fix what it reports") from None
    lock = yaml_text.read(copy / "dvc.lock")
    outs = [copy / out["path"] for out in lock["stages"][stage].get("outs", [])]
    files = [file for out in outs for file in ([out] if out.is_file() else sorted(out.rglob("*")))]
    return {str(file.relative_to(copy)): sha256(file) for file in files if file.is_file()}
