"""Judge a model of the registry on the current data set: fetch it, draw from it, evaluate it. Nothing in artifacts/ changes."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpipe.errors import EXIT_STATUS, BadInput, BadState, Busy, GenpipeError, Unavailable, WorkFailed
from genpipe.files import hash_of, read_json, write_json
from genpipe.graph import read_plan
from genpipe.params.project import read_params
from tasks import guard
from tasks.order import downstream

JUDGED = Path(".genpipe") / "judged"  # below the project


@dataclass(frozen=True)
class Version:
    """A model of the registry, and the metrics that were recorded when it was made."""

    model: str
    version: str
    stages: tuple[str, ...]
    recorded: Mapping[str, float]

    @property
    def name(self) -> str:
        """As `genpipe pull` calls it."""
        return f"{self.model}@{self.version}"


class NotJudged(WorkFailed):
    """A version could not be judged: one line that says why."""


# By the exit status of a command of genpipe.
FAILURES: dict[int, type[GenpipeError]] = {EXIT_STATUS[kind]: kind for kind in (BadInput, Unavailable, Busy)}


def versions(root: Path, names: list[str]) -> list[Version]:
    """Those named: a model (all of it), MODEL@VERSION or MODEL@STAGE; without names all whose recipe is in params.yaml."""
    rows = json.loads(genpipe(root, "models", "--json"))
    known = [
        Version(row["model"], row["version"], tuple(row["stages"]), row["metrics"] or {}) for row in rows
    ]
    recipes = read_params(root).recipes
    found = [version for name in names for version in _named(known, name)] or [
        version for version in known if version.model in recipes
    ]
    if not found:
        raise BadState(
            "no model of a recipe in params.yaml is registered yet; python -m flows.retrain --publish registers those that pass"
        )
    return found


def require_data(root: Path, recipe: str) -> None:
    """Check that the current data set, and the judge trained on it, are made: a model is no better than its judge."""
    read_params(root).named("recipes", recipe)
    stages = read_plan(root, [f"evaluate@{recipe}"]).stages
    own = {f"train@{recipe}", *(stage.name for stage in downstream(f"train@{recipe}", list(stages)))}
    stale = [stage.name for stage in stages if stage.is_stale and stage.name not in own]
    if stale:
        raise BadState(
            f"{recipe}: {', '.join(stale)} out of date; bring that up to date: python -m flows.retrain {' '.join(stale)}"
        )


def judge(root: Path, version: Version) -> dict[str, float]:
    """The metrics of a version on current data."""
    require_data(root, version.model)
    directory = root / JUDGED / version.name
    model, samples, metrics = directory / "model", directory / "samples", directory / "metrics.json"
    genpipe(root, "pull", version.name, "--out", str(model))
    _give_current_data(root, model)
    given = ("--model", str(model))
    genpipe(root, "sample", version.model, *given, "--out", str(samples))
    genpipe(root, "evaluate", version.model, *given, "--samples", str(samples), "--out", str(metrics))
    return read_json(metrics)


def genpipe(root: Path, *words: str) -> str:
    """What a command of genpipe prints; it ends with this process, however that ends."""
    done = guard.run([sys.executable, "-m", "genpipe.cli", *words], root)
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    raise FAILURES.get(done.returncode, NotJudged)(lines[-1].removeprefix("genpipe: "))


def _named(known: list[Version], name: str) -> list[Version]:
    model, at, wanted = name.partition("@")
    found = [
        version
        for version in known
        if version.model == model and (not at or wanted in (version.version, *version.stages))
    ]
    if not found:
        raise BadInput(f"{name}: no such model in the registry; genpipe models lists what there is")
    return found


def _give_current_data(root: Path, model: Path) -> None:
    """Let genpipe load a model that was trained on other images than the current ones.

    The card of this copy gets the hash of the data that it is judged on, and keeps the hash of those it was trained on.
    Token ids mean other words with another vocabulary: there the card stays, and genpipe refuses what does not belong.
    """
    card: dict[str, Any] = read_json(model / "recipe.json")
    directory = root / "artifacts" / card["data"]
    if directory.parent.name == "datasets" and directory.is_dir():
        now = hash_of([directory], directory)
        write_json(
            model / "recipe.json", {**card, "data_sha256": now, "trained_on_sha256": card["data_sha256"]}
        )
