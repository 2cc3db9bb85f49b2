"""The trials of a sweep: which values are combined, and what params.yaml says in each of them."""

import inspect
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from genpipe import metrics, yaml_text
from genpipe.errors import BadInput
from genpipe.params.project import check_params

Settings = dict[str, Any]  # path below the block of the recipe -> value


def read_setting(text: str) -> tuple[str, list[Any]]:
    """`train.solvers.nll.lr=1e-3,2e-3`: a path below the recipe's block, and the values to try there."""
    path, sign, values = text.partition("=")
    if not sign or not all(path.split(".")):
        raise BadInput(f"--set {text}: must be a path and values, as in train.steps=100,200")
    try:
        found = yaml_text.parse(f"[{values}]", "--set")
    except BadInput:
        raise BadInput(
            f"--set {text}: {values!r} is not a list of values; put commas between them, and quotes around text with signs in it"
        ) from None
    if not found:
        raise BadInput(f"--set {text}: needs one value or more after the equals sign")
    return path, found


def read_settings(texts: Sequence[str]) -> dict[str, list[Any]]:
    """All that `--set` was given: path -> values."""
    pairs = [read_setting(text) for text in texts]
    for number, (path, _) in enumerate(pairs):
        if any(path == other for other, _ in pairs[:number]):
            raise BadInput(
                f"--set {path}: named twice; write all its values after one equals sign, as in {path}=1,2"
            )
    return dict(pairs)


def combinations(grid: Mapping[str, Sequence[Any]], number: int | None, seed: int) -> list[Settings]:
    """Every combination of the values, or `number` of them drawn without repetition, in the order of the grid."""
    trials = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if number is None or number >= len(trials):
        return trials
    if number < 1:
        raise BadInput(f"--random: must be 1 or more combinations, not {number}")
    return [trials[index] for index in sorted(random.Random(seed).sample(range(len(trials)), number))]


def params_of(values: Mapping[str, Any], recipe: str, settings: Settings) -> dict[str, Any]:
    """All of params.yaml with the settings put into the block of the recipe; checked as params.yaml is."""
    changed = _unshared(values)
    check_params(changed).named("recipes", recipe)
    for path, value in settings.items():
        _put(changed["recipes"][recipe], f"recipes.{recipe}.{path}", path.split("."), value)
    check_params(changed)
    return changed


def check_network(params: Mapping[str, Any], recipe: str) -> None:
    """Check the `network` block against the constructor of the model, whose arguments params.yaml does not know."""
    from genpipe.models import RECIPES  # imports torch, which takes seconds

    block = params["recipes"][recipe]
    arguments = inspect.signature(RECIPES[block["model"]]).parameters
    for key, value in block["train"].get("network", {}).items():
        where = f"recipes.{recipe}.train.network.{key}"
        if key not in arguments:
            raise BadInput(
                f"{where}: the model {block['model']} has no such argument: {', '.join(arguments)}"
            )
        try:
            TypeAdapter(arguments[key].annotation).validate_python(value)
        except ValidationError as error:
            raise BadInput(f"{where}: {error.errors()[0]['msg']}, not {value!r}") from None


def metric_of(asked: str | None, results: Sequence[Mapping[str, float]]) -> str:
    """The metric to sort by: the one asked for, or the most important one that there is ("" where there is none)."""
    if asked:
        metrics.is_maximised(asked, "--metric")
    there = {name for found in results for name in found}
    if asked and there and asked not in there:
        raise BadInput(
            f"--metric {asked}: evaluate writes no such metric; it has: {', '.join(sorted(there))}"
        )
    return asked or next((name for name in metrics.ordered() if name in there), "")


def is_maximised(metric: str) -> bool:
    """Whether more of a metric is better; BadInput where the table of metrics does not say so."""
    return bool(metric) and metrics.is_maximised(metric, "--metric")


def _unshared(value: Any) -> Any:
    """A copy in which no block is there twice: anchors of YAML are one object, and a setting is for one recipe."""
    if isinstance(value, Mapping):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _put(block: dict[str, Any], where: str, path: list[str], value: Any) -> None:
    *folders, last = path
    for folder in folders:
        block = block.setdefault(folder, {})
        if not isinstance(block, dict):
            raise BadInput(
                f"params.yaml: {where}: {folder} is a value and has no keys; name a path to one value"
            )
    block[last] = value
