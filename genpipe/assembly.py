"""A recipe put together from its parameters and the facts of its data, and its training on one process."""

import ctypes
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from genpipe.capabilities import Embeds
from genpipe.data.loader import Data, facts_of, read_description, require_facts
from genpipe.data.opening import open_data, require_test, require_whole_groups
from genpipe.errors import BadInput, BadState
from genpipe.evaluation.validation import VALIDATIONS
from genpipe.files import WEIGHTS, existing, read_json
from genpipe.models import RECIPES
from genpipe.params.blocks import Pattern, checked_argument
from genpipe.params.techniques import Normalisation
from genpipe.recipe import Recipe
from genpipe.training.agreement import refuse_other_machines, together
from genpipe.training.checkpoint import load_fitting, load_weights
from genpipe.training.job import Job
from genpipe.training.logical import Exchange
from genpipe.training.runs import RunFiles
from genpipe.training.trainer import Trainer, Validate
from genpipe.training.weight_transforms import normalise

NONE: Mapping[str, Normalisation] = MappingProxyType({})
AGAIN = "fetch or train the model again"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def build(
    model: str,
    network: Mapping[str, Any],
    facts: Mapping[str, Any],
    seed: int,
    normalisations: Mapping[str, Normalisation] = NONE,
) -> Recipe:
    """A new recipe: the facts of its data that it asks for, and the `network` block, whose keys must be its arguments."""
    if model not in RECIPES:
        raise BadInput(f"no model {model!r}; there is: {', '.join(sorted(RECIPES))}")
    make = RECIPES[model]
    arguments = inspect.signature(make).parameters
    for key in network:
        if key not in arguments or key in facts:
            knobs = ", ".join(name for name in arguments if name not in facts)
            raise BadInput(f"train.network.{key}: not an argument of {make.__name__}, which takes: {knobs}")
    missing = [n for n, p in arguments.items() if p.default is p.empty and n not in {*facts, *network}]
    if missing:
        raise BadInput(
            f"{make.__name__} needs data with {', '.join(missing)}, and the data has: {', '.join(facts) or 'no facts'}; "
            "name other data (recipes.*.data), or take another model"
        )
    known = {name: value for name, value in facts.items() if name in arguments}
    values = {
        key: checked_argument(f"train.network.{key}", value, arguments[key].annotation)
        for key, value in network.items()
    }
    torch.manual_seed(seed)
    try:
        recipe = make(**known, **values)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        ArithmeticError,
    ) as error:  # what torch says of a size that cannot be
        raise BadInput(
            f"train.network of {make.__name__}: {network}: {str(error).splitlines()[0]}"
        ) from error
    normalise(recipe, normalisations)
    return recipe


class _Training(BaseModel):
    """What is used of the block `train` of recipe.json."""

    network: dict[str, Any]
    normalisations: dict[Pattern, Normalisation] = {}
    batches: dict[str, Any] = {}


class _Card(BaseModel):
    """What is used of recipe.json."""

    model: str
    train: _Training


class Trained(NamedTuple):
    """A trained model, and what data.json in its directory says of the data that it was trained on."""

    recipe: Recipe
    kind: str
    facts: Mapping[str, Any]


def load_trained(directory: Path) -> Trained:
    """The model in a directory that `genpipe train` or `genpipe pull` wrote; no data is read.

    Raises BadState where a file is missing or wrong, or where the model's code no longer fits its weights.
    """
    card = read_card(directory)
    existing(directory / "data.json", "this model does not have the facts of its data; train it again")
    described = read_description(directory)
    training, facts = card["train"], facts_of(described)
    try:
        recipe = build(card["model"], training["network"], facts, 0, training.get("normalisations", {}))
    except BadInput as error:
        raise BadState(f"{directory}: {error}; if the code is that of the model, train it again") from None
    require_facts(directory, described, AGAIN)
    load_weights(recipe, directory / WEIGHTS)
    return Trained(recipe.eval(), described["kind"], facts)


def read_card(directory: Path) -> dict[str, Any]:
    """What a model directory says of its training."""
    path = existing(directory / "recipe.json", "name the directory of a trained model, or train one")
    card = read_json(path)
    try:
        _Card.model_validate(card, strict=True)
    except ValidationError as error:
        (fault, *_) = error.errors()
        where = "".join(f"{part}: " for part in fault["loc"])
        raise BadState(f"{path}: {where}{fault['msg']}, not {fault['input']!r:.60}; {AGAIN}") from None
    return card


def fit(exchange: Exchange, device: torch.device, job: Job, run: RunFiles) -> None:
    """The training of one process; every process builds the same recipe from the same seed."""
    keep_freed_memory()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    refuse_other_machines(exchange, device, job.machine)
    together(exchange, device, lambda: trainer_of(exchange, device, job, run)).fit()


def trainer_of(
    exchange: Exchange,
    device: torch.device,
    job: Job,
    run: RunFiles,
    say: Callable[[str], None] = lambda line: None,
) -> Trainer:
    """A trainer of a new recipe, which begins with the weights of `job.start` where these fit; `say` gets what did not."""
    params = job.params
    data = open_data(job.data, params.batches)
    require_test(data)
    require_whole_groups(data, params.batch_size, params.logical_workers)
    recipe = build(job.model, params.network, data.facts, job.seed, params.normalisations)
    if job.start:
        new = load_fitting(recipe, job.start[0] / WEIGHTS)
        say(f"begins with the weights of {job.start[0].name}; not in them: {', '.join(new) or 'nothing'}")
    validate = validator_of(job, data) if params.best and params.best.validation else None
    return Trainer(recipe.to(device), data, params, job.seed, exchange, run, validate)


def validator_of(job: Job, data: Data) -> Validate:
    """What measures weights by the metric of `train.best`, in a model of its own, so that the training does not notice."""
    best = job.params.best
    assert best is not None
    assert best.validation is not None
    metric, num = best.validation, best.num
    if metric not in VALIDATIONS:
        raise BadInput(
            f"train.best.metric: no validation.{metric}; there is: validation.{', validation.'.join(VALIDATIONS)}"
        )
    if not job.params.batches.get("validation"):
        raise BadInput(
            f"train.best.metric: validation.{metric} is measured on rows that are held out, and there are none; "
            "set train.batches.validation to their number"
        )
    judge, kind = VALIDATIONS[metric], read_description(job.data)["kind"]
    model = build(job.model, job.params.network, data.facts, job.seed, job.params.normalisations).eval()
    yardstick = validator_model(job.validator[0], data) if job.validator else None

    def validate(weights: Mapping[str, Tensor]) -> float:
        with torch.no_grad():
            model.load_state_dict(weights)
        return judge.measure(metric, model, data, kind, num, job.seed, yardstick)

    return validate


def validator_model(directory: Path, data: Data) -> Embeds:
    """The trained model in whose features the images of checkpoints are compared; BadInput where it cannot do that."""
    found, where = load_trained(directory), f"recipes.*.validator: models/{directory.name}"
    require_features(type(found.recipe), where)
    require_images_of_one_size(found.facts, data.facts, where)
    return cast(Embeds, found.recipe)


def require_features(model: type, where: str) -> None:
    """BadInput, begun with `where`, for a model in whose features no images can be compared."""
    if not issubclass(model, Embeds):
        raise BadInput(
            f"{where} has no features to compare images by; take a classifier, or none to leave that metric out"
        )


def require_images_of_one_size(known: Mapping[str, Any], facts: Mapping[str, Any], where: str) -> None:
    """BadInput, begun with `where`, where the facts of a judge's data and of other data name images of two sizes."""
    sizes = [tuple(each.get("image_shape", ())) for each in (known, facts)]
    if sizes[0] != sizes[1]:
        raise BadInput(
            f"{where} knows images of {sizes[0]} pixels, and these have {sizes[1] or 'none'}; take a classifier of images of "
            "that size"
        )


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: handing large tensors back to Linux at every step cost a seventh of it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(option, 1 << 30)
