"""`genpipe models`: the versions of models, where each stands, and its metrics."""

from pathlib import Path
from typing import Any

from genpipe.errors import BadInput
from genpipe.registry.promotion import metrics_at
from genpipe.registry.tags import Model, read_models


def rows(root: Path, name: str | None = None) -> list[dict[str, Any]]:
    """A row for each version of each model, or of one: its number, stages, date, commit and metrics; newest first."""
    models = read_models(root)
    if name is not None and name not in models:
        raise BadInput(
            f"{name}: no version of it is registered; there is {', '.join(models) or 'none of any model'}"
        )
    chosen = models.values() if name is None else [models[name]]
    return [row for model in chosen for row in _rows(root, model)]


def describe(found: list[dict[str, Any]]) -> str:
    """The rows in words."""
    if not found:
        return "no model is registered yet; python -m flows.retrain --publish registers those that pass their rules"
    retired = [row for row in found if row["deprecated"] and row["stages"]]
    return "\n".join([*map(_line, found), *map(_remark, retired)])


def _line(row: dict[str, Any]) -> str:
    marks = [*row["stages"], *(["deprecated"] if row["deprecated"] else [])]
    metrics = ", ".join(f"{metric} {value:g}" for metric, value in row["metrics"].items())
    return f"{row['model']}@{row['version']:8} {','.join(marks) or '-':6} {row['created'][:10]}  {row['commit']:.12}  {metrics}"


def _remark(row: dict[str, Any]) -> str:
    name = f"{row['model']}@{row['version']}"
    return f"{name} is deprecated and still {', '.join(row['stages'])}; genpipe rollback {row['model']} puts another there"


def _rows(root: Path, model: Model) -> list[dict[str, Any]]:
    return [
        {
            "model": model.name,
            "version": version.name,
            "stages": model.stages_of(version),
            "deprecated": version.is_deprecated,
            "created": version.created,
            "commit": version.commit,
            "metrics": metrics_at(root, version.commit, model.name),
        }
        for version in reversed(model.versions)
    ]
