"""A copy of the project in which other parameters or other raw data are tried, with stages and artifacts of its own.

    .genpipe/trials/KEY   KEY is a hash of everything that was put there

It holds the tracked files as they are now, uncommitted edits included, and shares the cache of DVC with the project: what
was made before, here or there, is restored and not made again. So a workspace can be deleted at any time.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configobj import ConfigObj

from genpipe import yaml_text
from genpipe.dvc_command import DvcFailed, dvc
from genpipe.errors import Unavailable
from genpipe.files import new_directory
from genpipe.git import files_of
from genpipe.graph import read_plan
from tasks.watching import data_state, sources_of

TRIALS = Path(".genpipe") / "trials"  # below the project
MADE = "artifacts"  # where stages write


@dataclass(frozen=True)
class Contents:
    """What is put into a workspace beside or instead of the tracked files of the project."""

    files: Mapping[str, bytes]
    targets: tuple[str, ...]  # stages that are to be run there
    without: tuple[str, ...] = ()  # tracked files and folders that are left out
    pins: tuple[str, ...] | None = (
        None  # .dvc files whose data DVC puts there; None links the raw data of the project
    )


def open_workspace(root: Path, contents: Contents) -> Path:
    """The directory of the workspace with these contents: made now, whole or not at all, or found as it was left."""
    path = root / TRIALS / key_of(root, contents)
    if not path.exists():
        with new_directory(path) as partial:
            _copy_tracked(root, partial, contents)
            _share_cache(root, partial)
            _add_data(root, partial, contents)
    return path


def key_of(root: Path, contents: Contents) -> str:
    """The name of a workspace: a hash of its files, of its raw data and of the stages to run."""
    names = [
        name for name in _copied(root, contents) if name != "dvc.lock"
    ]  # it tells what was made, no input
    files = {name: hashlib.sha256(_bytes(root, name, contents)).hexdigest() for name in names}
    data = data_state(root) if contents.pins is None else {}  # else the pins are among the files
    content = json.dumps([files, data, contents.targets], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@contextlib.contextmanager
def code_of_the_workspace() -> Iterator[None]:
    """Let what stages run import the code that lies in their own directory: the code that DVC hashes is the code that runs."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([os.curdir, *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _copied(root: Path, contents: Contents) -> list[str]:
    left_out = (MADE, *contents.without)
    names = {name for name in files_of(root) if not any(_is_below(name, folder) for folder in left_out)}
    return sorted(names | set(contents.files))


def _is_below(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}/")


def _bytes(root: Path, name: str, contents: Contents) -> bytes:
    return contents.files[name] if name in contents.files else (root / name).read_bytes()


def _copy_tracked(root: Path, target: Path, contents: Contents) -> None:
    for name in _copied(root, contents):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if name in contents.files:
            (target / name).write_bytes(contents.files[name])
        else:
            shutil.copy2(root / name, target / name)


def _share_cache(root: Path, target: Path) -> None:
    """Let DVC work there as it does in the project: with its cache, its remotes and their passwords, but without Git."""
    own: Any = ConfigObj(interpolation=False, encoding="utf-8")  # sections of values
    shared = root / ".dvc"
    for name in ("config", "config.local"):
        own.merge(ConfigObj(str(shared / name), encoding="utf-8", interpolation=False))
    for section in own.values():
        if "://" not in section.get("url", "://"):
            section["url"] = str((shared / section["url"]).resolve())
    cache = (shared / own.get("cache", {}).get("dir", "cache")).resolve()
    links = "reflink,hardlink,symlink,copy"
    own.merge({"core": {"no_scm": "true", "analytics": "false"}, "cache": {"dir": str(cache), "type": links}})
    path = target / ".dvc" / "config.local"
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o600)  # there may be passwords in it
    with path.open("wb") as file:
        own.write(file)


def _add_data(root: Path, target: Path, contents: Contents) -> None:
    if contents.pins is not None:
        if contents.pins:
            _checkout(target, contents)
        return
    for name in [*_pinned(target), *sources_of(target)]:
        if (root / name).exists() and not (target / name).exists():
            _link(root / name, target / name)


def _pinned(target: Path) -> list[str]:
    """What the .dvc files of the project pin, relative to its root."""
    pins = [path for path in target.rglob("*.dvc") if path.is_file()]
    return [name for pin in pins for name in _pinned_by(target, pin)]


def _pinned_by(target: Path, pin: Path) -> list[str]:
    return [(pin.parent / out["path"]).relative_to(target).as_posix() for out in yaml_text.read(pin)["outs"]]


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_or_copy)
    else:
        _link_or_copy(str(source), str(target))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)


def _checkout(target: Path, contents: Contents) -> None:
    """Have DVC put the pinned data there that the stages need, out of its cache, or else out of the remote."""
    pins = contents.pins or ()
    lost: dict[str, DvcFailed] = {}
    with contextlib.suppress(DvcFailed):
        dvc(target, "--wait-for-lock", "checkout", "--quiet", *pins)
        return
    for pin in pins:
        try:
            _fetch(target, pin)
        except DvcFailed as error:
            lost[pin] = error
    if not lost:
        return
    needed = " ".join(read_plan(target, list(contents.targets) or None).problems)
    for (
        pin,
        error,
    ) in lost.items():  # data that no stage of these reads may be missing: it may never have been fetched
        if any(name in needed for name in _pinned_by(target, target / pin)):
            raise Unavailable(
                f"{pin}: the raw data is not in the cache of DVC, and its remote did not give it ({error}); "
                "run this again when the remote answers; if it lacks the data, `dvc push` it from where it is"
            ) from None


def _fetch(target: Path, pin: str) -> None:
    for verb in ("fetch", "checkout"):
        dvc(target, "--wait-for-lock", verb, "--quiet", pin)
