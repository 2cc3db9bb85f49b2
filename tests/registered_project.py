"""A real project that is made once and then copied: Git with a bare remote, DVC with a remote, two small models, rules.

The weights of a model are its `quality`; its metrics are computed from that, so that a test makes a better or a worse model
by one number of params.yaml.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.repository import commit, dvc, make_repository, run

STAGE = """\
import json, pathlib, sys
import yaml
verb, name = sys.argv[1:]
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
here = pathlib.Path("artifacts")
if verb == "prepare":
    out = here / "datasets" / name / "numbers.txt"
    text = pathlib.Path(params["datasets"][name]["source"]).read_text()
elif verb == "train":
    out = here / "models" / name / "weights.safetensors"
    text = json.dumps(params["recipes"][name]["train"]["network"])
    out.parent.mkdir(parents=True)
    (out.parent / "recipe.json").write_text(json.dumps({"device": "cpu", "libraries": {"torch": "2.13.0"}}))
    (out.parent / "card.md").write_text("# " + name)
else:
    out = here / "metrics" / (name + ".json")
    quality = json.loads((here / "models" / name / "weights.safetensors").read_text())["quality"]
    text = json.dumps({"bits_per_dim": 5 - quality, "latent_correlation": quality / 2})
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(text)
"""
GRAPH = """\
stages:
  prepare:
    foreach: ${datasets}
    do:
      cmd: python stage.py prepare ${key}
      deps: ["${item.source}", stage.py]
      outs: ["artifacts/datasets/${key}"]
  train:
    foreach: ${recipes}
    do:
      cmd: python stage.py train ${key}
      deps: ["artifacts/${item.data}", code, stage.py]
      params: ["recipes.${key}.train"]
      outs: ["artifacts/models/${key}"]
  evaluate:
    foreach: ${recipes}
    do:
      cmd: python stage.py evaluate ${key}
      deps: ["artifacts/models/${key}", "artifacts/${item.judge}", "artifacts/${item.data}", stage.py]
      metrics: [{"artifacts/metrics/${key}.json": {cache: false}}]
"""
IGNORED = "/artifacts/*\n!/artifacts/metrics/\n/artifacts/metrics/*\n!/artifacts/metrics/*.json\n/data/\n/.genpipe/\n"
RULES: list[dict[str, Any]] = [
    {"metric": "bits_per_dim", "direction": "minimise", "min_gain": 0.1, "bound": 4.5},
    {"metric": "latent_correlation", "direction": "maximise", "bound": 0.2},
]


def make_template(home: Path) -> None:
    """`home/project`, `home/remote.git` and `home/store`, with paths that hold after copying all of `home`."""
    root = home / "project"
    root.mkdir(parents=True)
    (home / "store").mkdir()
    run(home, "git", "init", "-q", "--bare", "-b", "main", "remote.git")
    make_repository(root)
    run(root, "git", "remote", "add", "origin", "../remote.git")
    dvc(root, "remote", "add", "-q", "-d", "store", "../store")
    (root / "stage.py").write_text(STAGE)
    (root / "dvc.yaml").write_text(GRAPH)
    (root / ".gitignore").write_text(IGNORED)
    (root / "README.md").write_text("a project\n")
    (root / "code").mkdir()
    (root / "code/model.py").write_text("one = 1\n")
    write_params(root)
    write_data(root, "1 2 3\n")
    commit_sources(root, "begin")
    run(root, "git", "push", "-q", "-u", "origin", "main")
    dvc(root, "repro", "-q")


def copy_template(template: Path, home: Path) -> Path:
    """A project of one's own; its root."""
    shutil.copytree(template, home, symlinks=True, dirs_exist_ok=True)
    return home / "project"


def write_params(root: Path, rules: Any = None, **qualities: float) -> None:
    """params.yaml with these qualities of `nice` and `judge` (1 where none is given)."""
    train = {"batch_size": 8, "steps": 1, "solvers": {"nll": {"optimiser": "adam", "lr": 0.1}}}
    recipes = {
        name: {
            "model": name,
            "data": "datasets/digits",
            "sample": {"num": 1},
            "start": "none",
            "judge": "models/judge",
            "train": {**train, "network": {"quality": qualities.get(name, 1)}},
        }
        for name in ("nice", "judge")
    }
    params = {
        "datasets": {"digits": {"kind": "text", "source": "data/digits.txt"}},
        "recipes": recipes,
        "promotion": {"nice": RULES if rules is None else rules},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def write_data(root: Path, text: str) -> None:
    """Replace the raw data, and pin it."""
    (root / "data").mkdir(exist_ok=True)
    (root / "data/digits.txt").unlink(missing_ok=True)  # a link into the cache is not written through
    (root / "data/digits.txt").write_text(text)
    dvc(root, "add", "-q", "data")


def rerun(root: Path, rules: Any = None, **qualities: float) -> str:
    """Commit these parameters and bring the stages up to date; the commit."""
    write_params(root, rules, **qualities)
    made = commit_sources(root, f"parameters {qualities}")
    dvc(root, "repro", "-q")
    return made


def commit_sources(root: Path, subject: str) -> str:
    """Commit everything but what a run writes; the hash of the commit."""
    return commit(root, subject, "dvc.lock", "artifacts")


def lines(root: Path, *command: str) -> list[str]:
    return run(root, *command).splitlines()


def branches(root: Path) -> list[str]:
    """The names of the branches that runs were published on."""
    return lines(root, "git", "for-each-ref", "--format=%(refname:short)", "refs/heads/genpipe/")


def tags(root: Path) -> list[str]:
    return lines(root, "git", "tag", "--list")


def json_at(root: Path, revision: str, path: str) -> Any:
    return json.loads(run(root, "git", "show", f"{revision}:{path}"))
