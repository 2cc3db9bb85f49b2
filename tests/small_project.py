"""A real project with Git, DVC and raw data whose stages take a moment: what the flows do is seen in what they write.

`train@RECIPE` writes its learning rate and the sum of the raw numbers; `evaluate@RECIPE` turns that into metrics. A
training takes as many seconds as seconds.txt says while it runs, or else TRAINING_SECONDS, or none.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.repository import commit, dvc, make_repository

STAGE = """\
import json, os, pathlib, sys, time
import yaml
from genpipe import lease
lease.die_with_parent()
verb, name = sys.argv[1:]
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
here = pathlib.Path("artifacts")
pathlib.Path("pids").mkdir(exist_ok=True)
pathlib.Path("pids", f"{verb}@{name}-{os.getpid()}").touch()
if verb == "prepare":
    text = pathlib.Path(params["datasets"][name]["source"]).read_text()
    out, value = here / "datasets" / name, {"sum": sum(map(float, text.split()))}
elif verb == "count":
    out, value = here / "counts" / name, {"counted": name}
elif verb == "vocabulary":
    out, value = here / "vocabularies" / name, {"vocabulary": name}
elif verb == "train":
    train = params["recipes"][name]["train"]
    if train["steps"] == 13:
        sys.exit("thirteen steps are too many")
    begun, told = time.monotonic(), pathlib.Path("seconds.txt")
    while time.monotonic() - begun < float(told.read_text() if told.exists() else os.environ.get("TRAINING_SECONDS", 0)):
        time.sleep(0.05)
    data = json.loads((here / params["recipes"][name]["data"]).read_text())
    out = here / "models" / name
    value = {"lr": train["solvers"]["nll"]["lr"], "steps": train["steps"], "sum": data["sum"], "code": CODE}
else:
    model = json.loads((here / "models" / name).read_text())
    out, value = here / "metrics" / f"{name}.json", {"bits_per_dim": 1000 * model["lr"] + 10 / model["steps"], "sum": model["sum"]}
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(value))
"""
GRAPH = """\
stages:
  prepare:
    foreach: ${datasets}
    do:
      cmd: python stage.py prepare ${key}
      deps: ["${item.source}", stage.py]
      params: ["datasets.${key}"]
      outs: ["artifacts/datasets/${key}"]
  count:
    foreach: ${corpora}
    do:
      cmd: python stage.py count ${key}
      deps: ["artifacts/datasets/${item.dataset}", stage.py]
      params: ["corpora.${key}"]
      outs: ["artifacts/counts/${key}"]
  vocabulary:
    foreach: ${corpora}
    do:
      cmd: python stage.py vocabulary ${key}
      deps: ["artifacts/counts/${key}", stage.py]
      outs: ["artifacts/vocabularies/${key}"]
  train:
    foreach: ${recipes}
    do:
      cmd: python stage.py train ${key}
      deps: ["artifacts/${item.data}", stage.py]
      params: ["recipes.${key}.train"]
      outs: ["artifacts/models/${key}"]
  evaluate:
    foreach: ${recipes}
    do:
      cmd: python stage.py evaluate ${key}
      deps: ["artifacts/models/${key}", "artifacts/${item.judge}", stage.py]
      metrics: ["artifacts/metrics/${key}.json"]
"""
# one object twice: params.yaml then has an anchor and an alias
TRAIN: dict[str, Any] = {"batch_size": 8, "steps": 10, "solvers": {"nll": {"optimiser": "adam", "lr": 0.001}}}
RECIPE: dict[str, Any] = {
    "data": "datasets/numbers",
    "sample": {"num": 4},
    "start": "none",
    "judge": "models/classifier",
}
PARAMS: dict[str, Any] = {
    "cluster": {"workers": 0, "max_parallel": 2},
    "datasets": {"numbers": {"kind": "text", "source": "data/numbers.txt"}},
    "corpora": {
        name: {"dataset": "numbers", "files": ["documents.jsonl"]} for name in ("one", "two")
    },
    "recipes": {
        name: {"model": name, **RECIPE, "train": TRAIN} for name in ("classifier", "nice")
    },
}  # fmt: skip


def make_project(root: Path) -> Path:
    """The project at `root`: committed, with its raw data pinned and nothing run yet."""
    make_repository(root)
    (root / "stage.py").write_text(f"CODE = 1\n{STAGE}")
    (root / "dvc.yaml").write_text(GRAPH)
    (root / ".gitignore").write_text("/data/\n/artifacts/\n/.genpipe/\n/pids/\n/seconds.txt\n")
    (root / ".dvcignore").write_text(".genpipe\n.git\npids\n")
    write_params(root)
    write_data(root, "1 2 3\n")
    commit(root, "begin")
    return root


def write_params(root: Path, **changed: Any) -> None:
    (root / "params.yaml").write_text(yaml.safe_dump({**PARAMS, **changed}, sort_keys=False))


def write_data(root: Path, text: str) -> None:
    """Replace the raw data, and pin it."""
    (root / "data").mkdir(exist_ok=True)
    (root / "data/numbers.txt").unlink(missing_ok=True)
    (root / "data/numbers.txt").write_text(text)
    dvc(root, "add", "-q", "data")


def started(root: Path) -> list[str]:
    """The stages whose command was started at `root`, sorted."""
    return sorted(path.name.rsplit("-")[0] for path in root.glob("pids/*"))


def metrics_of(workspace: Path) -> dict[str, Any]:
    return json.loads((workspace / ".genpipe/result.json").read_text())
