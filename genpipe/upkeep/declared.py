"""Whether dvc.yaml names all the code that its stages run: else a hash stays the same though a result would not."""

import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grimp

from genpipe import yaml_text
from genpipe.errors import BadInput
from genpipe.graph import read_plan

ENTRANCES = {  # what each command imports to do its work; a package stands for all that is in it
    "prepare": ("genpipe.sources.datasets",),
    "count": ("genpipe.corpus.counting", "genpipe.corpus.actors"),
    "vocabulary": ("genpipe.corpus.vocabulary",),
    "encode": ("genpipe.corpus.encoding",),
    "train": ("genpipe.assembly", "genpipe.training.export"),
    "sample": ("genpipe.sampling.panels", "genpipe.data.opening"),
    "evaluate": ("genpipe.evaluation",),
    "report": ("genpipe.report.page",),
}
WITHOUT_EFFECT = {  # on what a result is: they write, complain, show, or read the file of parameters
    "genpipe",
    "genpipe.errors",
    "genpipe.files",
    "genpipe.lease",
    "genpipe.progress",
    "genpipe.yaml_text",
    "genpipe.own_code",
    "genpipe.params",
    "genpipe.params.project",
    "genpipe.params.cluster",
    "genpipe.params.promotion",
}
MODEL = "genpipe/models/${item.model}.py"  # the one of the recipe: a stage that imports models declares this


def check(root: Path) -> list[str]:
    """What is wrong with the dependencies in dvc.yaml, a line each; nothing where all is declared."""
    return [*_undeclared(root), *_missing(root), *model_imports()]


def stages_of(root: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml as they are written there; those of a foreach or a matrix by what they do."""
    path = root / "dvc.yaml"
    try:
        stages = yaml_text.read(path)["stages"]
    except (FileNotFoundError, KeyError, TypeError):
        raise BadInput(f"{path}: wanted a file with stages; go to the root of the project") from None
    return {name: stage.get("do") or stage for name, stage in stages.items()}


def dependencies(stage: dict[str, Any]) -> list[str]:
    """The paths that a stage declares; one may be written with settings after it."""
    return [path if isinstance(path, str) else next(iter(path)) for path in stage.get("deps", [])]


def undeclared(command: str, declared: list[str]) -> set[str]:
    """The modules that a command of genpipe imports and that none of the declared paths covers."""
    used = modules_of(command) - WITHOUT_EFFECT
    if command == "report":  # it depends on params.yaml as a whole
        used = {name for name in used if not name.startswith("genpipe.params")}
    models = {name for name in used if name.startswith("genpipe.models")}
    missing = {name for name in used - models if not any(_covers(path, name) for path in declared)}
    return missing | (models if models and MODEL not in declared else set())


@cache
def _imports() -> grimp.ImportGraph:
    return grimp.build_graph("genpipe", cache_dir=None)  # else it writes one into the current directory


def modules_of(command: str) -> set[str]:
    """All modules of genpipe that a command imports, directly or through others."""
    graph = _imports()
    entrances = {name for given in ENTRANCES[command] for name in (given, *graph.find_children(given))}
    return entrances.union(*(graph.find_upstream_modules(name) for name in entrances))


def _covers(path: str, module: str) -> bool:
    name = path.removesuffix(".py").replace("/", ".")
    return module == name or module.startswith(f"{name}.")


def _undeclared(root: Path) -> Iterator[str]:
    for name, stage in stages_of(root).items():
        words = shlex.split(str(stage.get("cmd", "")))
        if words[:1] == ["genpipe"] and len(words) > 1 and words[1] in ENTRANCES:
            modules = sorted(undeclared(words[1], dependencies(stage)))
            if modules:
                yield f"dvc.yaml: {name} imports {', '.join(modules)} and does not declare it; add it to its deps"
        else:
            yield f"dvc.yaml: {name}: what `{stage.get('cmd')}` imports is not known; let it run a command of genpipe"


def _missing(root: Path) -> Iterator[str]:
    """Files that stages declare and that are not there; raw data is no concern of a check of the code."""
    return (
        f"dvc.yaml: {problem}"
        for problem in read_plan(root).problems
        if "needs it and it is missing" in problem
    )


def model_imports() -> Iterator[str]:
    """Models that import another model: a stage declares the file of its own alone."""
    graph = _imports()
    for model in sorted(graph.find_children("genpipe.models")):
        others = graph.find_upstream_modules(model) & graph.find_children("genpipe.models")
        for other in sorted(others):
            yield f"{model} imports {other}, which its stages do not declare; move what they share to genpipe.nn"
