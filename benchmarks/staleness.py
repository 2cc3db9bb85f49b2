"""Which stages an edit of a file or a new version of a library makes stale, by the lists that dvc.yaml had, and by imports.

    python -m benchmarks.staleness                             # prints the page
    python -m benchmarks.staleness --write docs/staleness.md

Run in the root of the project. An edit changes what the code does, not a comment or a docstring. In a file of which only
some functions count for a stage, the edit is of one that does. Stages below a stale one count too. The recipes are those of the
set quick.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genpipe import dependencies
from genpipe.libraries import LOCK, locked
from genpipe.params.project import Params, read_params

FOLDERS = ("nn", "data", "training")
BEFORE: Mapping[str, tuple[str, ...]] = {  # folders of genpipe that the lists named, by command
    "train": ("nn", "data", "training"),
    "sample": ("nn", "data", "sampling"),
    "evaluate": ("nn", "data", "sampling", "evaluation"),
}
PAGE = """# What an edit makes stale

For each file of genpipe/nn, data and training, the number of stages that an edit makes stale, of {num} that train, sample and evaluate
the recipes of the set quick: before, when dvc.yaml listed whole folders, and after, with the code that a stage imports. An edit of a comment or a docstring
makes only the stage code stale, which takes a second. Made by

    python -m benchmarks.staleness --write docs/staleness.md

{files}

Every stage depended on all of `requirements.lock`. Now it depends on the versions there of the libraries that its code imports and of what these
require. A new version of one makes stale, of the {stages} stages of all recipes and data:

{libraries}

A new version of one of the other {others} packages of the lock makes only the stage code stale.
"""

Stages = frozenset[str]
Code = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by command and item


def by_lists(file: str, recipes: Mapping[str, Any]) -> Stages:
    """The stages that depended on the folder of a file."""
    commands = [command for command, folders in BEFORE.items() if file.split("/")[0] in folders]
    return frozenset(f"{command}@{recipe}" for command in commands for recipe in recipes)


def by_imports(file: str, code: Code) -> Stages:
    """The stages whose entry in artifacts/code.json has the file."""
    return frozenset(
        f"{command}@{name}" for command in BEFORE for name, entry in code[command].items() if file in entry
    )


def by_library(code: Code) -> dict[Stages, list[str]]:
    """The libraries of artifacts/code.json by the stages whose entries have them, those of most stages first."""
    using: dict[str, set[str]] = {}
    for command, items in code.items():
        for name, entry in items.items():
            for library in entry[dependencies.LIBRARIES]:
                using.setdefault(library, set()).add(f"{command}@{name}")
    together: dict[Stages, list[str]] = {}
    for library in sorted(using, key=lambda name: (-len(using[name]), name)):
        together.setdefault(frozenset(using[library]), []).append(library)
    return together


def with_downstream(stale: Stages, params: Params) -> Stages:
    """Stages with those that read what they make: samples of a model, metrics of both, and what starts from it."""
    trained = {name for name in params.recipes if f"train@{name}" in stale}
    while (
        begun := {name for name, recipe in params.recipes.items() if _named(recipe.start) in trained}
        - trained
    ):
        trained |= begun
    sampled = {name for name in params.recipes if f"sample@{name}" in stale} | trained
    judged = {
        name for name, recipe in params.recipes.items() if name in sampled or _named(recipe.judge) in trained
    }
    return stale.union(
        (f"train@{name}" for name in trained),
        (f"sample@{name}" for name in sampled),
        (f"evaluate@{name}" for name in judged),
    )


def _named(other: str) -> str:
    return other.removeprefix("models/")


def quick(params: Params) -> Params:
    """The parameters with the recipes of the set quick alone."""
    recipes = {name: params.recipes[name] for name in params.sets["quick"]}
    return params.model_copy(update={"recipes": recipes})


def rows(root: Path, params: Params, code: Code) -> Iterator[tuple[str, Stages, Stages]]:
    """A file, the stages stale before, and after."""
    code = {command: {name: code[command][name] for name in params.recipes} for command in BEFORE}
    for folder in FOLDERS:
        for path in sorted((root / "genpipe" / folder).glob("*.py")):
            file = folder if path.stem == "__init__" else f"{folder}/{path.stem}"
            before = with_downstream(by_lists(file, params.recipes), params)
            yield f"{folder}/{path.name}", before, with_downstream(by_imports(file, code), params)


def named(stages: Stages, num_recipes: int) -> str:
    """The recipes of which stages are trained anew, or the commands where none is."""
    trained = sorted(stage.partition("@")[2] for stage in stages if stage.startswith("train@"))
    if trained:
        return "all" if len(trained) == num_recipes else ", ".join(trained)
    commands = sorted({stage.partition("@")[0] for stage in stages})
    return f"none; {', '.join(commands)} only" if commands else "none"


def table(root: Path, params: Params, code: Code) -> str:
    """Markdown, a row for each file."""
    num = len(params.recipes)
    lines = ["| file | stages before | stages after | trained anew after |", "|---|---:|---:|---|"]
    lines += [
        f"| {file} | {len(before)} | {len(after)} | {named(after, num)} |"
        for file, before, after in rows(root, params, code)
    ]
    return "\n".join(lines)


def table_of_libraries(code: Code) -> str:
    """Markdown, a row for the libraries of the same stages."""
    lines = ["| libraries | stages | of the commands |", "|---|---:|---|"]
    for stages, libraries in by_library(code).items():
        commands = [command for command in code if any(stage.startswith(f"{command}@") for stage in stages)]
        lines.append(f"| {', '.join(libraries)} | {len(stages)} | {', '.join(commands)} |")
    return "\n".join(lines)


def page(root: Path) -> str:
    """The page with both tables."""
    params, code = quick(read_params(root)), dependencies.code_of(root)
    counted = {name for libraries in by_library(code).values() for name in libraries}
    return PAGE.format(
        num=len(BEFORE) * len(params.recipes),
        files=table(root, params, code),
        stages=sum(map(len, code.values())),
        libraries=table_of_libraries(code),
        others=len((locked(root / LOCK) or {}).keys() - counted),
    )


def main() -> int:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there")
    arguments = parser.parse_args()
    text = page(Path.cwd())
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
