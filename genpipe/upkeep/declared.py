"""Whether dvc.yaml makes its stages depend on the code that they run: else a hash stays the same though a result would not."""

import ast
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genpipe import dependencies, yaml_text
from genpipe.errors import BadState
from genpipe.graph import read_plan
from genpipe.libraries import LOCK

WITHOUT_CODE = {"code"}  # commands that write no result
DYNAMIC = {"importlib", "runpy", "pkgutil", "import_module", "__import__", "exec", "eval"}


def check(root: Path) -> list[str]:
    """What is wrong with the dependencies in dvc.yaml, a line each; nothing where all is declared."""
    return [
        *_undeclared(root),
        *_unlocked(root),
        *_missing(root),
        *model_imports(),
        *dynamic_imports(),
        *_top_of_package(),
    ]


def stages_of(root: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml as they are written there; those of a foreach or a matrix by what they do."""
    path = root / "dvc.yaml"
    try:
        stages = yaml_text.read(path)["stages"]
    except (FileNotFoundError, KeyError, TypeError):
        raise BadState(f"{path}: not a file with stages; go to the root of the project") from None
    return {name: stage.get("do") or stage for name, stage in stages.items()}


def entries(stage: dict[str, Any]) -> list[str]:
    """The entries of artifacts/code.json that a stage depends on."""
    files = [params for params in stage.get("params", []) if isinstance(params, dict)]
    return [entry for params in files for entry in params.get(dependencies.CODE.as_posix(), [])]


def _undeclared(root: Path) -> Iterator[str]:
    for name, stage in stages_of(root).items():
        words = shlex.split(str(stage.get("cmd", "")))
        command = words[1] if words[:1] == ["genpipe"] and len(words) > 1 else ""
        entry = f"{command}.${{key}}"
        if command in WITHOUT_CODE:
            continue
        if command not in dependencies.ENTRANCES:
            yield f"dvc.yaml: {name}: what `{stage.get('cmd')}` imports is not known; let it run a command of genpipe"
        elif entry not in entries(stage):
            yield f"dvc.yaml: {name} does not depend on its code; add {{{dependencies.CODE}: [{entry}]}} to its params"


def _unlocked(root: Path) -> Iterator[str]:
    """The stage that writes the code of the others writes the versions of libraries too."""
    for name, stage in stages_of(root).items():
        writes = dependencies.CODE.as_posix() in stage.get("outs", [])
        if writes and (root / LOCK).exists() and LOCK not in stage.get("deps", []):
            yield f"dvc.yaml: {name} does not depend on {LOCK}, whose versions it writes; add it to its deps"


def _missing(root: Path) -> Iterator[str]:
    """Files that stages declare and that are not there; raw data is no concern of a check of the code."""
    return (
        f"dvc.yaml: {problem}"
        for problem in read_plan(root).problems
        if "needs it and it is missing" in problem
    )


def _top_of_package(package: Path = dependencies.PACKAGE) -> Iterator[str]:
    """What genpipe/__init__.py does on import: every command imports it, and no hash has it."""
    file = package / "__init__.py"
    for statement in ast.parse(file.read_bytes()).body:
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not is_text and not isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef):
            yield f"{package.name}/__init__.py:{statement.lineno}: runs in every command; move it to a module that stages import"


def _models(package: Path) -> list[str]:
    return sorted(path.stem for path in (package / "models").glob("*.py") if path.stem != "__init__")


def model_imports(package: Path = dependencies.PACKAGE) -> Iterator[str]:
    """Models that import another model: what they share is a brick."""
    for model in _models(package):
        used = dependencies.closure([f"models.{model}"], {"models": {model}}, package)
        for other in sorted(
            {f"models/{name}" for name in _models(package)} & used.keys() - {f"models/{model}"}
        ):
            yield f"genpipe/models/{model}.py imports genpipe/{other}.py; move what they share to genpipe/nn"


def dynamic_imports(package: Path = dependencies.PACKAGE) -> Iterator[str]:
    """Places, in a model or in what it imports, that import by a name made at run time: no hash would see that code."""
    used = {
        name
        for model in _models(package)
        for name in dependencies.closure([f"models.{model}"], {"models": {model}}, package)
    }
    for name in sorted(used):
        path = package / f"{name}.py" if (package / f"{name}.py").exists() else package / name / "__init__.py"
        if path.exists():
            yield from (
                f"{path.relative_to(package.parent)}:{line}: a dynamic import; import it by its name"
                for line in _dynamic(path)
            )


def _dynamic(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call) and DYNAMIC.intersection(_named(node)):
            yield node.lineno


def _named(node: ast.Import | ast.ImportFrom | ast.Call) -> list[str]:
    """The modules that an import names, or the function that is called."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "").partition(".")[0]]
    return [ast.unparse(node.func)]
