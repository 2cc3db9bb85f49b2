"""A copy of this project that is small enough to be run from end to end in a test."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).resolve().parents[2]
RECIPES = ("classifier", "nice", "couplet")
TINY: dict[str, Any] = {"batch_size": 16, "steps": 10, "checkpoint_every": 5}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    make_project(root, RECIPES, {"workers": 0, "max_parallel": 2})
    return root


def make_project(root: Path, recipes: Sequence[str], cluster: dict[str, Any]) -> None:
    """Copy this project, made small, and fetch its raw data."""
    for name in output(HERE, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (HERE / name).is_file() and name != "dvc.lock" and not name.startswith("artifacts/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / name, root / name)
    output(root, "git", "init", "--quiet")
    _make_small(root / "params.yaml", recipes, cluster)
    output(root, sys.executable, "-m", "genpipe.cli", "data")
    commit(root, "begin")  # the deployments publish, which wants a commit to stand on


def commit(root: Path, message: str) -> None:
    """Commit everything."""
    output(root, "git", "add", "--all")
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    output(root, "git", *identity, "commit", "--quiet", "--allow-empty", "--message", message)


def _make_small(path: Path, recipes: Sequence[str], cluster: dict[str, Any]) -> None:
    """Few steps, few samples, and only as many stages as show every kind of work."""
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["cluster"] = cluster
    params["recipes"] = {name: params["recipes"][name] | {"sample": {"num": 100}} for name in recipes}
    kept = {
        name: [recipe for recipe in members if recipe in recipes] for name, members in params["sets"].items()
    }
    params["sets"] = {name: members for name, members in kept.items() if members}
    params["promotion"] = {"classifier": [{"metric": "accuracy", "direction": "maximise", "min_gain": 0}]}
    for recipe in params["recipes"].values():
        recipe["train"] |= TINY
    for block in ("corpora", "encodings"):
        params[block] = {"couplets": params[block]["couplets"]}
    params["features"] = params["lexicons"] = {}
    params["datasets"] = {name: params["datasets"][name] for name in ("digits", "couplets")}
    path.write_text(yaml.safe_dump(params, allow_unicode=True, sort_keys=False), encoding="utf-8")


def output(root: Path, *command: str) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def swap_two_labels(path: Path) -> None:
    """Behind the header of 8 bytes, the first label and the first one that differs from it."""
    content = bytearray(path.read_bytes())
    other = next(i for i in range(9, len(content)) if content[i] != content[8])
    content[8], content[other] = content[other], content[8]
    path.write_bytes(content)


def train_less(path: Path) -> None:
    """One step for the classifier, in this params.yaml."""
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["recipes"]["classifier"]["train"] |= {"steps": 1, "checkpoint_every": 1}
    path.write_text(yaml.safe_dump(params, allow_unicode=True, sort_keys=False), encoding="utf-8")


def in_production(root: Path) -> str:
    """The version of the classifier."""
    listed = json.loads(output(root, sys.executable, "-m", "genpipe.cli", "models", "classifier", "--json"))
    return next(row["version"] for row in listed if "prod" in row["stages"])
