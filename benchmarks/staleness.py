"""Which stages an edit of a file makes stale, by the hand-written lists that dvc.yaml had, and by imports.

    python -m benchmarks.staleness                             # prints the table
    python -m benchmarks.staleness --write docs/staleness.md

Run in the root of the project. An edit changes what the code does, not a comment or a docstring. In a file of which only
some functions count for a stage, the edit is of one that does. Stages below a stale one count too.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genpipe import dependencies
from genpipe.params.project import Params, read_params

FOLDERS = ("nn", "data", "training")
BEFORE: Mapping[str, tuple[str, ...]] = {  # folders of genpipe that the lists named, by command
    "train": ("nn", "data", "training"),
    "sample": ("nn", "data", "sampling"),
    "evaluate": ("nn", "data", "sampling", "evaluation"),
}
PAGE = """# What an edit makes stale

For each file of genpipe/nn, data and training, the number of stages that an edit makes stale, of {num} that train, sample and evaluate:
before, when dvc.yaml listed whole folders, and after, with the code that a stage imports. An edit of a comment or a docstring
makes only the stage code stale, which takes a second. Made by

    python -m benchmarks.staleness --write docs/staleness.md

{table}
"""

Stages = frozenset[str]


def by_lists(file: str, recipes: Mapping[str, Any]) -> Stages:
    """The stages that depended on the folder of a file."""
    commands = [command for command, folders in BEFORE.items() if file.split("/")[0] in folders]
    return frozenset(f"{command}@{recipe}" for command in commands for recipe in recipes)


def by_imports(file: str, code: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Stages:
    """The stages whose entry in artifacts/code.json has the file."""
    return frozenset(
        f"{command}@{name}" for command in BEFORE for name, hashes in code[command].items() if file in hashes
    )


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


def rows(root: Path) -> Iterator[tuple[str, Stages, Stages]]:
    """A file, the stages stale before, and after."""
    params, code = read_params(root), dependencies.code_of(root)
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


def table(root: Path) -> str:
    """Markdown, a row for each file."""
    num = len(read_params(root).recipes)
    lines = ["| file | stages before | stages after | trained anew after |", "|---|---:|---:|---|"]
    lines += [
        f"| {file} | {len(before)} | {len(after)} | {named(after, num)} |"
        for file, before, after in rows(root)
    ]
    return "\n".join(lines)


def main() -> int:
    """Print the table, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there")
    arguments = parser.parse_args()
    root = Path.cwd()
    if arguments.write:
        num = len(BEFORE) * len(read_params(root).recipes)
        arguments.write.write_text(PAGE.format(num=num, table=table(root)), encoding="utf-8")
    else:
        print(table(root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
