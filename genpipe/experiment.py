"""Where models, training, sampling and evaluation meet: what `genpipe train`, `sample` and `evaluate` do."""

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from genpipe import dependencies
from genpipe.assembly import (
    fit,
    keep_freed_memory,
    load_trained,
    read_card,
    require_features,
    require_images_of_one_size,
    trainer_of,
)
from genpipe.capabilities import CAPABILITIES, Embeds, Samples
from genpipe.cores import cores
from genpipe.data.loader import Data, codec_files
from genpipe.data.opening import open_data
from genpipe.errors import BadInput, BadState
from genpipe.evaluation.given import GivenNetwork
from genpipe.evaluation.judge import NotMeasured, Trial, judged
from genpipe.evaluation.judges import JUDGES
from genpipe.files import (
    TRAINED,
    WEIGHTS,
    existing,
    hash_of,
    new_directory,
    read_description,
    refuse_inputs,
    require_ours,
    write_json,
)
from genpipe.metrics import metric
from genpipe.models import RECIPES
from genpipe.params.cluster import Cluster, Where
from genpipe.params.project import Params, RecipeParams, read_params
from genpipe.params.training import Training
from genpipe.recipe import Recipe
from genpipe.sample_options import require_options_of_samples
from genpipe.sampling.outputs import SAMPLES
from genpipe.sampling.panels import Showing, show_all
from genpipe.sampling.text import speller_in
from genpipe.training.export import export, is_finished
from genpipe.training.job import Job
from genpipe.training.local import train_here
from genpipe.training.logical import Alone
from genpipe.training.processor import libraries, processor
from genpipe.training.runs import Run
from genpipe.training.watching import watched

IN_PROCESS = (0, 0)  # workers
PARAMS = "params.yaml"
MAKE_DATA = "run the stage that makes it (genpipe plan names it)"


def describe_recipes() -> str:
    """A line for each model: its name, what it can do, and the first sentence of its page."""
    lines: list[str] = []
    for name, make in sorted(RECIPES.items()):
        can = ", ".join(capability.__name__ for capability in CAPABILITIES if issubclass(make, capability))
        about = inspect.getdoc(inspect.getmodule(make)) or make.__name__
        lines.append(f"{name:12} {can:26} {about.splitlines()[0]}")
    return "\n".join(lines)


def train(
    root: Path,
    name: str,
    *,
    workers: tuple[int, int] | None,
    steps: int | None,
    seed: int | None,
    out: Path | None,
    tensorboard: Path | None,
    executor: Where | None = None,
) -> None:
    """Train a recipe of params.yaml, or go on with it, and write the model, its card and its curve."""
    project, params = recipe_params(root, name)
    if out is None and (steps is not None or seed is not None):
        raise BadInput(
            "--steps and --seed make another model than params.yaml says; name where it goes with --out DIR"
        )
    data = root / "artifacts" / params.data
    model = out or root / "artifacts" / "models" / name
    refuse_inputs(
        model, [data, root / PARAMS, *(root / "artifacts" / x for x in (params.start, params.validator))]
    )
    require_ours(model, TRAINED)
    require_options_of_samples(name, params, RECIPES.get(params.model))
    training = params.train.model_copy(update={"steps": steps or params.train.steps})
    workers = number_of_workers(name, workers, project.cluster.as_allotted(), training.logical_workers)
    place = place_of(name, workers, executor, project.cluster)
    torch.set_num_threads(1)
    device = "cuda" if workers != IN_PROCESS and project.cluster.gpus_per_worker else "cpu"
    seeds = (seed, training.seed, project.seed)
    card = identity(
        root, name, project, training, next(known for known in seeds if known is not None), device
    )
    run = Run(root / ".genpipe" / "runs" / f"{name}-{run_key(card)}", storage_of(root, project.cluster))
    machine = {**card["processor"], **card["libraries"]}
    start = (root / "artifacts" / params.start, card["start"]["sha256"]) if card["start"] else None
    validator = (
        (root / "artifacts" / params.validator, card["validator"]["sha256"]) if "validator" in card else None
    )
    job = Job(params.model, data, card["data_sha256"], training, card["seed"], machine, start, validator)
    # complains here, before anything is spawned
    first = trainer_of(Alone(), torch.device("cpu"), job, run, lambda line: print(f"{name}: {line}"))
    if first.validate:
        first.validate(first.recipe.state_dict())
    described = {**read_description(data), "facts": dict(first.data.facts)}
    codec = codec_files(data)
    with watched(name, run.directory, training.steps, tensorboard):
        if is_finished(run, training.steps):
            print(f"{name}: this training is finished already; exporting it")
        elif place == "here":
            fit(Alone(), torch.device("cpu"), job, run)
        elif place == "local":
            train_here(fit, job, run, min(workers[1], max(workers[0], cores())))
        else:
            from genpipe.training.ray import train_on_workers  # imports ray, which takes seconds

            gpus = project.cluster.gpus_per_worker
            train_on_workers(fit, job, run, workers, gpus, root / ".genpipe" / "ray")
    curve = out / "curve.tsv" if out else root / "artifacts" / "curves" / f"{name}.tsv"
    export(run, card, model, curve, described, codec)


def number_of_workers(
    name: str, asked: tuple[int, int] | None, cluster: Cluster, logical_workers: int
) -> tuple[int, int]:
    """The fewest and the most processes that train: as asked for, or as the project has, where that many have work."""
    if asked is None:
        fewest, most = cluster.workers, (cluster.max_workers if cluster.workers else 0) or cluster.workers
        return min(fewest, logical_workers), min(max(fewest, most), logical_workers)
    if asked[1] > logical_workers:
        raise BadInput(
            f"--workers {asked[1]}: recipes.{name} has {logical_workers} logical workers, so at most that many "
            "processes have work; raise logical_workers (that makes other weights) or lower --workers"
        )
    return asked


def place_of(
    name: str, workers: tuple[int, int], asked: Where | None, cluster: Cluster
) -> Literal["here", "local", "ray"]:
    """Where a training runs: as asked for, else on Ray where a cluster is named or GPUs are needed."""
    if workers == IN_PROCESS:
        return "here"
    executor, gpus = asked or cluster.executor_of(f"train@{name}"), cluster.gpus_per_worker
    if executor == "local" and gpus:
        raise BadInput(
            f"executor local: cluster.gpus_per_worker is {gpus:g}, and GPUs are used through Ray; take executor ray, or 0 GPUs"
        )
    if executor != "auto":
        return executor
    return "ray" if gpus or os.environ.get("RAY_ADDRESS") else "local"


def storage_of(root: Path, cluster: Cluster) -> str | None:
    """Where checkpoints are kept: a URL as it is, a directory below the project where it is relative."""
    if cluster.storage is None or "://" in cluster.storage:
        return cluster.storage
    return str(root / cluster.storage)


def identity(
    root: Path, name: str, project: Params, training: Training, seed: int, device: str
) -> dict[str, Any]:
    """What a training depends on: data, code and parameters, libraries, and the kinds of device and processor."""
    params = project.recipes[name]
    directory = existing(root / "artifacts" / params.data, MAKE_DATA)
    return {
        "recipe": name,
        "model": params.model,
        "data": params.data,
        "start": weights_of(root, params.start),
        **({"validator": weights_of(root, params.validator)} if params.validator != "none" else {}),
        "train": training.model_dump(mode="json"),
        "seed": seed,
        "data_sha256": hash_of([directory], directory),
        "code_sha256": dependencies.digest(dependencies.code_for("train", name, project.model_dump())),
        "device": device,
        "processor": dict(processor()),
        "libraries": dict(libraries()),
    }


def weights_of(root: Path, place: str) -> dict[str, str] | None:
    """A trained recipe that a training needs, and the hash of its weights; None for `none`."""
    if place == "none":
        return None
    weights = existing(root / "artifacts" / place / WEIGHTS, f"train it first: genpipe plan names {place}")
    return {"model": place.removeprefix("models/"), "sha256": hash_of([weights], weights.parent)}


def run_key(card: Mapping[str, Any]) -> str:
    """The name of a run: a changed input starts clean, an interrupted one goes on."""
    kept = {key: value for key, value in card["train"].items() if key not in ("log_every", "keep")}
    if card["train"]["best"] is None:  # else it says over which steps a checkpoint is judged
        del kept["checkpoint_every"]
    return hashlib.sha256(json.dumps({**card, "train": kept}, sort_keys=True).encode()).hexdigest()[:16]


def trained(root: Path, params: RecipeParams, directory: Path) -> tuple[Recipe, Data]:
    """The recipe in a model directory, as its card says that it was trained, and the data of `params`."""
    card = read_card(directory)
    data_directory = existing(root / "artifacts" / params.data, MAKE_DATA)
    expected = {"model": params.model, "data_sha256": hash_of([data_directory], data_directory)}
    for key, value in expected.items():
        if card.get(key) != value:
            raise BadState(
                f"{directory}: the {key} of this model is {card.get(key)!s:.16}, not {value:.16}; train it again"
            )
    return load_trained(directory).recipe, open_data(data_directory, card["train"].get("batches", {}))


def sample(root: Path, name: str, *, model: Path | None, seed: int | None, out: Path | None) -> None:
    """Draw what a trained recipe can make, by capability."""
    torch.set_num_threads(1)
    keep_freed_memory()
    project, params = recipe_params(root, name)
    if out is None and (model is not None or seed is not None):
        raise BadInput("--model and --seed make other samples than the project's; name where with --out DIR")
    seed = project.seed if seed is None else seed
    model = model or root / "artifacts" / "models" / name
    out = out or root / "artifacts" / "samples" / name
    refuse_inputs(
        out, [model, root / PARAMS, *(root / "artifacts" / path for path in (params.data, params.judge))]
    )
    recipe, data = trained(root, params, model)
    with new_directory(out, SAMPLES) as partial:
        showing = Showing(
            recipe=recipe,
            data=data,
            kind=kind_of(root, params),
            num=params.sample.num,
            seed=seed,
            how=params.sample.how,
            speller=speller_in(root / "artifacts" / params.data),
            directory=partial,
            model=model,
            features=features_for(root, project, name, recipe, data),
            processes=min(project.cluster.as_allotted().workers, cores()),
        )
        show_all(showing)
        made = ", ".join(sorted(path.name for path in partial.iterdir()))
    print(f"wrote {out}: {made}")


def features_for(root: Path, project: Params, name: str, recipe: Recipe, data: Data) -> Embeds | None:
    """The judge of a recipe that draws images; None where it has none, or where its samples are no images."""
    is_compared = isinstance(recipe, Samples) and "image_shape" in data.facts
    if not is_compared or project.recipes[name].judge == "none":
        return None
    return yardstick_of(root, project, name, data)


def evaluate(root: Path, name: str, *, model: Path | None, samples: Path | None, out: Path | None) -> None:
    """Judge a trained recipe on its test data, by capability."""
    torch.set_num_threads(1)
    keep_freed_memory()
    project, params = recipe_params(root, name)
    if out is None and (model is not None or samples is not None):
        raise BadInput(
            "--model and --samples are not the project's; name where the metrics go with --out FILE"
        )
    if issubclass(RECIPES[params.model], Samples) and (model is None) != (samples is None):
        raise BadInput("--model and --samples go together: a model is judged with its own samples")
    model = model or root / "artifacts" / "models" / name
    samples = samples or root / "artifacts" / "samples" / name
    out = out or root / "artifacts" / "metrics" / f"{name}.json"
    read = (params.data, params.judge)
    refuse_inputs(out, [model, samples, root / PARAMS, *(root / "artifacts" / path for path in read)])
    recipe, data = trained(root, params, model)
    trial = Trial(
        recipe=recipe,
        data=data,
        kind=kind_of(root, params),
        split="test",
        samples=samples,
        yardstick=lambda: yardstick_of(root, project, name, data),
        speller=speller_in(root / "artifacts" / params.data),
        seed=project.seed,
        how=params.sample.how,
    )
    metrics: dict[str, float] = {}
    for split in data.splits:
        if split != "train":
            metrics |= judged(replace(trial, split=split), JUDGES, name)
    if not metrics:
        raise BadInput(
            f"{name}: every metric is left out, for the reasons above; name another judge in recipes.{name}, or add test data"
        )
    for key in metrics:
        metric(key, f"{name}: a judge")
    write_json(out, {key: float(f"{value:.6g}") for key, value in metrics.items()})
    for key, value in sorted(metrics.items()):
        print(f"{name}: {key} {value:.4g}")


def yardstick_of(root: Path, project: Params, name: str, data: Data) -> Embeds:
    """The trained recipe, or the given network, in whose features the samples of another recipe are judged.

    Raises NotMeasured where the recipe has no judge, as on images without labels.
    """
    place = project.recipes[name].judge
    if place == "none":
        raise NotMeasured(
            f"frechet_classifier and other distances: recipes.{name}.judge names no model in whose features images can be compared"
        )
    if place.startswith("datasets/"):
        return GivenNetwork(existing(root / "artifacts" / place, MAKE_DATA))
    params = project.recipes[place.removeprefix("models/")]
    where = f"recipes.{name}.judge: {place}"
    require_features(RECIPES[params.model], where)
    judge, known = trained(root, params, root / "artifacts" / place)
    assert isinstance(judge, Embeds)
    require_images_of_one_size(known.facts, data.facts, where)
    return judge


def kind_of(root: Path, params: RecipeParams) -> str:
    """The kind of the data of a recipe, as its data.json says."""
    return read_description(root / "artifacts" / params.data)["kind"]


def recipe_params(root: Path, name: str) -> tuple[Params, RecipeParams]:
    """The project's parameters and those of one recipe."""
    project = read_params(root)
    return project, project.named("recipes", name)
