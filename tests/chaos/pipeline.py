"""The pipeline that is attacked: a copy of this project, small, with Ray; and what must be as it was."""

import json
import random
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from genpipe.errors import GenpipeError
from genpipe.graph import read_plan
from tests.e2e.conftest import make_project

CLUSTER = {"workers": 2, "max_parallel": 2, "executor": "ray"}
ON_RAY = ("count", "discover", "encode", "train")
KEPT = {"train": ".genpipe/runs", "count": ".genpipe/counts"}  # what a stage goes on from
# Nothing of a run's result is there.
UNTOLD = (".git", ".dvc-state", ".genpipe/logs", ".genpipe/leases", "__pycache__")


@dataclass(frozen=True)
class State:
    """What an undisturbed run leaves."""

    lock: str
    files: frozenset[str]


def make(root: Path) -> None:
    """A project of nine stages."""
    make_project(root, ("classifier",), CLUSTER)


def state_of(root: Path) -> State:
    """What is there now."""
    files = (path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())
    told = (name for name in files if not any(f"/{part}/" in f"/{name}" for part in UNTOLD))
    return State((root / "dvc.lock").read_text(encoding="utf-8"), frozenset(told))


def stages_in(lock: str) -> dict[str, Any]:
    """The stages of a dvc.lock."""
    return yaml.safe_load(lock)["stages"]


def choose(rng: random.Random, names: Collection[str], with_ray: bool) -> list[str]:
    """One to three stages, one of them on Ray if wanted."""
    on_ray = sorted(name for name in names if name.split("@")[0] in ON_RAY)
    first = rng.choice(on_ray if with_ray else sorted(names))
    others = sorted(set(names) - {first})
    return sorted([first, *rng.sample(others, rng.randint(0, min(2, len(others))))])


def forget(root: Path, stages: Collection[str], lock: str, forgets_lock: bool) -> None:
    """Make the stages' work undone: their outputs, the cache's copies, the run-cache, what they would go on from.

    With `forgets_lock`, dvc.lock does not know them either.
    """
    (root / "dvc.lock").write_text(lock, encoding="utf-8")
    shutil.rmtree(root / ".dvc/cache/runs", ignore_errors=True)
    for name in stages:
        for out in stages_in(lock)[name]["outs"]:
            _remove(root / out["path"])
            _forget_object(root / ".dvc/cache/files/md5", out["md5"])
        if kept := KEPT.get(name.split("@")[0]):
            _remove(root / kept)
    if forgets_lock:
        known = yaml.safe_load(lock)
        known["stages"] = {name: entry for name, entry in known["stages"].items() if name not in stages}
        (root / "dvc.lock").write_text(yaml.safe_dump(known, sort_keys=False), encoding="utf-8")


def _forget_object(cache: Path, md5: str) -> None:
    path = cache / md5[:2] / md5[2:]
    if md5.endswith(".dir") and path.exists():
        for entry in json.loads(path.read_text(encoding="utf-8")):
            _forget_object(cache, entry["md5"])
    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def differences(root: Path, targets: Sequence[str], before: State, forgot_lock: bool) -> list[str]:
    """What is not as the undisturbed run left it: one line each."""
    now = state_of(root)
    same = stages_in(now.lock) == stages_in(before.lock) if forgot_lock else now.lock == before.lock
    left = sorted(name for name in now.files if name not in before.files or is_temporary(name))
    names = ", ".join(_differing(now.lock, before.lock)) or "its order"
    return [
        *([] if same else [f"dvc.lock differs in {names}"]),
        *(f"left behind: {name}" for name in left),
        *_out_of_date(root, targets),
    ]


def _out_of_date(root: Path, targets: Sequence[str]) -> list[str]:
    try:
        stale = read_plan(root, list(targets)).stale
    except GenpipeError as error:
        return [str(error)]
    return [f"still out of date: {stage.name}: {'; '.join(stage.reasons)}" for stage in stale]


def is_temporary(name: str) -> bool:
    """Whether a file is one that a process writes before it gets its name."""
    return ".partial" in name or ".replaced" in name


def _differing(now: str, before: str) -> list[str]:
    mine, theirs = stages_in(now), stages_in(before)
    return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
