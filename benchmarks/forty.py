"""A copy of this project with many recipes: what a plan and the laws of the tests take there.

    python -m benchmarks.forty [PART ...] [--rounds 7]

PART is plan or laws; without one, both. Each model is there five times, each time in a file and a class of its own, with a
block of params.yaml, a row in RECIPES and in tests/tiny.py: 55 recipes of 11 models, 177 stages. What the stages make is written as small
files of the usual names, and `dvc commit` enters it into dvc.lock, so that nothing is out of date and every hash is looked up.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from genpipe import yaml_text
from genpipe.dvc_command import environment
from genpipe.errors import BadInput

PROJECT = Path(__file__).parents[1]
COPIED = ("genpipe", "tests", "dvc.yaml", "pyproject.toml", "requirements.lock", ".dvcignore", ".gitignore")
TIMES = range(2, 6)  # of each model there is also a second to a fifth
FILES = {  # what the stages make, by the folder below artifacts/
    "datasets": ("data.json", "source.json", "train.jsonl", "test.jsonl", "tones.tsv"),
    "counts": ("counts.parquet", "statistics.json", "top.tsv", "growth.tsv", "zipf.tsv"),
    "vocabularies": ("vocabulary.json", "statistics.json"),
    "encoded": ("data.json", "codec.json", "vocabulary.json", "train.source.ids.npy", "test.source.ids.npy"),
    "models": ("weights.safetensors", "recipe.json", "card.md", "data.json"),
    "samples": ("samples.npy", "grid.png", "panels.json"),
}
BLOCKS = {
    "datasets": "datasets",
    "counts": "corpora",
    "vocabularies": "corpora",
    "encoded": "encodings",
    "models": "recipes",
    "samples": "recipes",
}
BARS = {"plan": 1.2, "laws": 90}  # times dvc status, CPU seconds


class Project:
    """The copy."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        ignored = shutil.ignore_patterns("__pycache__")
        for name in COPIED:
            source = PROJECT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copy2(source, root / name)
        self.params = self._params()
        (root / "params.yaml").write_text(yaml_text.dump(self.params), encoding="utf-8")
        self._add_models()
        self._add_to_the_tests()

    def words(self, *command: str) -> list[str]:
        """A command line that runs a command here, with the code that is here."""
        return ["env", "-C", str(self.root), f"PYTHONPATH={self.root}", "PYTHONDONTWRITEBYTECODE=", *command]

    def run(self, *command: str) -> str:
        """What a command prints here."""
        done = subprocess.run(
            self.words(*command), env=environment(self.root), capture_output=True, text=True
        )
        if done.returncode:
            raise BadInput(f"{' '.join(command)}: ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def make_everything(self) -> None:
        """Write what all stages make, and enter it into dvc.lock."""
        for command in (("git", "init", "-q"), (*DVC, "init", "-q")):
            self.run(*command)
        for name, block in self.params["datasets"].items():
            if not (self.root / block["source"]).exists():  # some are code
                write(self.root / block["source"], f"the source of {name}")
        self.run(*DVC, "add", "-q", "data")
        for folder, files in FILES.items():
            for name in self.params[BLOCKS[folder]]:
                for file in files:
                    write(self.root / "artifacts" / folder / name / file, f"{file} of {name}")
        for name in self.params["recipes"]:
            write(self.root / f"artifacts/curves/{name}.tsv", f"step\tloss\n1\t{name}\n")
            write(self.root / f"artifacts/metrics/{name}.json", "{}")
        self.run(*GENPIPE, "code")
        self.run(*DVC, "commit", "-f", "-q")
        self.run("git", "add", "-A")
        self.run(
            "git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "-m", "begin"
        )

    def _params(self) -> dict[str, Any]:
        values = yaml_text.read(PROJECT / "params.yaml")
        first = {block["model"]: name for name, block in reversed(values["recipes"].items())}
        recipes = {name: block for name, block in values["recipes"].items() if name in first.values()}
        copies = {
            copied(name, number): {**block, "model": copied(block["model"], number)}
            for name, block in recipes.items()
            for number in TIMES
        }
        sets = {name: [one for one in members if one in recipes] for name, members in values["sets"].items()}
        rules = {name: block for name, block in values["promotion"].items() if name in recipes}
        sets = {name: members for name, members in sets.items() if members}
        return {
            **values,
            "features": {},
            "lexicons": {},
            "recipes": {**recipes, **copies},
            "sets": sets,
            "promotion": rules,
        }

    def _add_models(self) -> None:
        """Files with classes of their own, and rows."""
        path = self.root / "genpipe/models/__init__.py"
        text = path.read_text(encoding="utf-8")
        for model, make in re.findall(r'^    "(\w+)": (\w+),$', text, re.MULTILINE):
            file = path.with_name(f"{model}.py")
            for number in TIMES:
                name, other = copied(model, number), f"{make}{number}"
                code = re.sub(rf"\b{make}\b", other, file.read_text(encoding="utf-8"))
                file.with_stem(name).write_text(code, encoding="utf-8")
                text = text.replace("] = {\n", f'] = {{\n    "{name}": {other},\n', 1)
                text = text.replace("\nfrom ", f"\nfrom genpipe.models.{name} import {other}\nfrom ", 1)
        path.write_text(text, encoding="utf-8")

    def _add_to_the_tests(self) -> None:
        """The small blocks, and the losses that fall."""
        path = self.root / "tests/tiny.py"
        text = path.read_text(encoding="utf-8")
        after = {"BLOCKS": "FALLING = {", "FALLING": "FALLING |= {"}
        for table, place in after.items():
            line = f'{table} |= {{f"{{n}}_{{i}}": row for n, row in {table}.items() for i in {TIMES}}}\n'
            if text.count(f"\n{place}") != 1:
                raise BadInput(f"{path}: {place} is not there once, so no rows can be added before it")
            text = text.replace(f"\n{place}", f"\n{line}{place}")
        path.write_text(text, encoding="utf-8")


DVC = (sys.executable, "-P", "-m", "dvc")
GENPIPE = (str(Path(sys.executable).with_name("genpipe")),)


def copied(name: str, number: int) -> str:
    """What a model or recipe is called that is the same as another one."""
    return f"{name}_{number}"


def write(path: Path, text: str) -> None:
    """A file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def plan(project: Project, rounds: int) -> str:
    """`genpipe plan` beside `dvc status`, alternated; nothing is out of date."""
    project.make_everything()
    expected = f"everything is up to date ({num_stages(project)} stages)"
    if (said := project.run(*GENPIPE, "plan").strip()) != expected:
        raise BadInput(f"genpipe plan: {said[:300]}, not {expected}")
    commands = {"dvc status": (*DVC, "status"), "genpipe plan": (*GENPIPE, "plan")}
    os.environ.update(environment(project.root))
    runs: dict[str, list[measure.Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name in measure.rotated(list(commands), number):
            run = measure.measured(project.words(*commands[name]), memory=False)
            if number:  # the first round warms what is remembered
                runs[name].append(run)
    lines = ["| command | wall s, median (min-max) | CPU s |", "|---|---:|---:|"]
    lines += [
        f"| `{name}` | {spread([r.wall for r in own])} | {spread([r.cpu for r in own])} |"
        for name, own in runs.items()
    ]
    wall, cpu = (
        [getattr(a, kind) / getattr(b, kind) for a, b in zip(*reversed(runs.values()), strict=True)]
        for kind in ("wall", "cpu")
    )
    lines.append(f"| the second by the first, at most {BARS['plan']} | {spread(wall)} | {spread(cpu)} |")
    return "\n".join(lines)


def num_stages(project: Project) -> int:
    """`code`, and a stage for each item of a block: two of corpora, three of recipes."""
    params = project.params
    times = {"datasets": 1, "corpora": 2, "encodings": 1, "recipes": 3}
    return 1 + sum(number * len(params[block]) for block, number in times.items())


def laws(project: Project, rounds: int) -> str:
    """tests/test_laws.py there, in CPU seconds of all its processes."""
    command = (sys.executable, "-m", "pytest", "tests/test_laws.py", "-q", "-p", "no:cacheprovider")
    run = measure.measured(project.words(*command), memory=False)
    return f"the laws of {len(project.params['recipes'])} recipes: {run.cpu:.1f} CPU s, at most {BARS['laws']} ({run.wall:.0f} s wall)"


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


PARTS = {"plan": plan, "laws": laws}


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for part in measure.chosen(arguments.parts, PARTS):
        with tempfile.TemporaryDirectory(prefix="forty-") as directory:
            busy = measure.busy_cores()
            print(PARTS[part](Project(Path(directory) / "project"), arguments.rounds))
            print(f"\nother programs had {busy:.2f} cores before\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
