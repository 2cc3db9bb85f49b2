"""Whether a stage gives the same bytes twice: run twice in a copy of the project, the files compared."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from genpipe.errors import BadInput
from genpipe.files import sha256
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
        for name in _tracked(root):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        cache = _output(root, "cache", "dir").strip()
        settings = f"[core]\n    no_scm = true\n    analytics = false\n[cache]\n    dir = {cache}\n"
        (copy / ".dvc").mkdir(exist_ok=True)
        (copy / ".dvc" / "config.local").write_text(settings, encoding="utf-8")
        _output(copy, "checkout", "--with-deps", stage)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _tracked(root: Path) -> list[str]:
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadInput(f"{root}: wanted a Git repository, to know which files are the project; git init")
    return [name for name in done.stdout.split("\0") if name]


def _run(copy: Path, stage: str, number: int) -> dict[str, str]:
    """Run the stage anew, as if never before: the hash of each file it made."""
    tell(f"{stage}: run {number} of 2")
    shutil.rmtree(copy / ".genpipe", ignore_errors=True)  # a finished training would only be exported again
    _output(copy, "repro", "--force", "--single-item", "--no-commit", "--no-run-cache", stage)
    lock = yaml.safe_load((copy / "dvc.lock").read_text(encoding="utf-8"))
    outs = [copy / out["path"] for out in lock["stages"][stage].get("outs", [])]
    files = [file for out in outs for file in ([out] if out.is_file() else sorted(out.rglob("*")))]
    return {str(file.relative_to(copy)): sha256(file) for file in files if file.is_file()}


def _output(root: Path, *words: str) -> str:
    here = str(Path(sys.executable).parent)  # where `genpipe` is, though nobody activated the environment
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    # a stage that runs this holds a lease of its own; the copy's are others
    own = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=root, env={**own, "PATH": path, "DVC_NO_ANALYTICS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise BadInput(
            f"`dvc {' '.join(words)}` failed: {' / '.join(lines[-2:])}; bring the project up to date first"
        )
    return done.stdout
