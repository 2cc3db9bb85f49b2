"""Where models, training and evaluation meet: what `genpipe train`, `sample` and `evaluate` do."""

import csv
import ctypes
import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genpipe.data.images import Images
from genpipe.data.loader import read_array
from genpipe.data.opening import open_data
from genpipe.data.pairs import Pairs
from genpipe.errors import BadInput
from genpipe.evaluation.codes import judge_codes
from genpipe.evaluation.couplets import judge_couplets
from genpipe.evaluation.frechet import judge_samples
from genpipe.evaluation.likelihood import bits_per_dim
from genpipe.files import existing, hash_of, new_directory, write_json
from genpipe.models import RECIPES
from genpipe.params import Params, RecipeParams, read_params
from genpipe.recipe import CAPABILITIES, Classifies, Decodes, Embeds, Encodes, LogProb, Recipe, Samples, Tags
from genpipe.sampling.showing import mistakes, write_samples
from genpipe.training.checkpoint import load_weights
from genpipe.training.export import export, is_finished
from genpipe.training.logical import Alone, Exchange
from genpipe.training.trainer import Trainer
from genpipe.training.watching import watched

PACKAGE = Path(__file__).parent
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
NOT_TRAINING = ("judge", "num_samples", "log_every", "checkpoint_every")  # what the weights do not depend on


def build(params: RecipeParams, facts: Mapping[str, Any], seed: int) -> Recipe:
    """A new recipe: the facts of its data that it asks for, and the `network` block, whose keys must be its arguments."""
    if params.model not in RECIPES:
        raise BadInput(f"no model {params.model!r}; there is: {', '.join(sorted(RECIPES))}")
    make = RECIPES[params.model]
    arguments = inspect.signature(make).parameters
    for key in params.network:
        if key not in arguments or key in facts:
            knobs = ", ".join(name for name in arguments if name not in facts)
            raise BadInput(
                f"recipes.*.network.{key}: not an argument of {make.__name__}, which takes: {knobs}"
            )
    missing = [n for n, p in arguments.items() if p.default is p.empty and n not in {*facts, *params.network}]
    if missing:
        raise BadInput(
            f"{make.__name__} wants data with {', '.join(missing)}, and {params.data} has: {', '.join(facts)}"
        )
    known = {name: value for name, value in facts.items() if name in arguments}
    torch.manual_seed(seed)
    return make(**known, **params.network)


def trained(root: Path, params: RecipeParams, directory: Path) -> tuple[Recipe, Images | Pairs]:
    """The recipe in a model directory, ready to use, and the data that it was trained on."""
    data = open_data(root / "artifacts" / params.data)
    recipe = build(params, data.facts, seed=0)
    load_weights(recipe, existing(directory, "train the model first") / "weights.safetensors")
    return recipe.eval(), data


def describe_recipes() -> str:
    """A line for each model: its name, what it can do, and the first sentence of its page."""
    lines: list[str] = []
    for name, make in sorted(RECIPES.items()):
        can = ", ".join(capability.__name__ for capability in CAPABILITIES if issubclass(make, capability))
        lines.append(f"{name:12} {can:26} {summary_of(name).splitlines()[0]}")
    return "\n".join(lines)


def summary_of(model: str) -> str:
    """What the model's file says of itself."""
    return inspect.getdoc(inspect.getmodule(RECIPES[model])) or ""


def train(
    root: Path, name: str, *, workers: int | None, steps: int | None, seed: int | None, out: Path | None
) -> None:
    """Train a recipe of params.yaml, or go on with it, and write the model, its card and its curve."""
    project, params = recipe_params(root, name)
    params = params.model_copy(update={"steps": steps or params.steps})
    seed = project.seed if seed is None else seed
    workers = project.cluster.workers if workers is None else workers
    if workers > params.logical_workers:
        raise BadInput(
            f"--workers {workers}: recipes.{name} has {params.logical_workers} logical workers, so at most that many "
            "processes have work; raise logical_workers (that makes other weights) or lower --workers"
        )
    torch.set_num_threads(1)
    card = identity(root, name, params, seed)
    run_directory = root / ".genpipe" / "runs" / f"{name}-{run_key(card)}"
    arguments = {
        "root": str(root),
        "params": params.model_dump(),
        "seed": seed,
        "run_directory": str(run_directory),
    }
    trainer_of(Alone(), torch.device("cpu"), arguments)  # complains here, not on a worker
    run_directory.mkdir(parents=True, exist_ok=True)
    with watched(name, run_directory / "metrics.jsonl", params.steps):
        if is_finished(run_directory, params.steps):
            print(f"{name}: this training is finished already; exporting it")
        elif workers == 0:
            fit(Alone(), torch.device("cpu"), arguments)
        else:
            from genpipe.training.ray import train_on_workers  # imports ray, which takes seconds

            train_on_workers(
                fit, arguments, workers, project.cluster.gpus_per_worker, root / ".genpipe" / "ray"
            )
    models, curves = root / "artifacts" / "models", root / "artifacts" / "curves"
    curve = out / "curve.tsv" if out else curves / f"{name}.tsv"
    export(run_directory, card, summary_of(params.model), out or models / name, curve)


def fit(exchange: Exchange, device: torch.device, arguments: dict[str, Any]) -> None:
    """The training of one process; every process builds the same recipe from the same seed."""
    keep_freed_memory()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    trainer_of(exchange, device, arguments).fit()


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: handing large tensors back to Linux at every step cost a seventh of it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(option, 1 << 30)


def trainer_of(exchange: Exchange, device: torch.device, arguments: dict[str, Any]) -> Trainer:
    """A trainer of a new recipe; bad parameters are found here, before anything is spawned."""
    params = RecipeParams.model_validate(arguments["params"])
    data = open_data(Path(arguments["root"]) / "artifacts" / params.data)
    recipe = build(params, data.facts, arguments["seed"]).to(device)
    return Trainer(recipe, data, params, arguments["seed"], exchange, Path(arguments["run_directory"]))


def identity(root: Path, name: str, params: RecipeParams, seed: int) -> dict[str, Any]:
    """What a training depends on: data, code and parameters."""
    directory = existing(
        root / "artifacts" / params.data, "run the stage that makes it (genpipe plan names it)"
    )
    code = [PACKAGE / "models" / f"{params.model}.py", PACKAGE / "recipe.py"]
    code += [PACKAGE / part for part in ("data", "nn", "training")]
    return {
        "recipe": name,
        "seed": seed,
        "params": params.model_dump(mode="json"),
        "data_sha256": hash_of([directory], directory),
        "code_sha256": hash_of(code, PACKAGE),
    }


def run_key(card: Mapping[str, Any]) -> str:
    """The name of a run: a changed input starts clean, an interrupted one goes on."""
    params = {key: value for key, value in card["params"].items() if key not in NOT_TRAINING}
    return hashlib.sha256(json.dumps({**card, "params": params}, sort_keys=True).encode()).hexdigest()[:16]


def sample(root: Path, name: str, *, model: Path | None, seed: int | None, out: Path | None) -> None:
    """Draw what a trained recipe can make, by capability."""
    torch.set_num_threads(1)
    project, params = recipe_params(root, name)
    seed = project.seed if seed is None else seed
    recipe, data = trained(root, params, model or root / "artifacts" / "models" / name)
    out = out or root / "artifacts" / "samples" / name
    with new_directory(out) as partial:
        write_samples(recipe, data, params.num_samples, seed, partial)
        made = ", ".join(sorted(path.name for path in partial.iterdir()))
    print(f"wrote {out}: {made}")


def evaluate(root: Path, name: str, *, model: Path | None, samples: Path | None, out: Path | None) -> None:
    """Judge a trained recipe on its test data, by capability."""
    torch.set_num_threads(1)
    project, params = recipe_params(root, name)
    recipe, data = trained(root, params, model or root / "artifacts" / "models" / name)
    metrics: dict[str, float] = {}
    if isinstance(data, Images):
        images = data.test()["images"]
        if isinstance(recipe, Classifies):
            metrics["accuracy"] = 1 - float(mistakes(recipe, data).double().mean())
        if isinstance(recipe, LogProb):
            metrics["bits_per_dim"] = bits_per_dim(recipe, images, project.seed)
        if isinstance(recipe, Encodes) and isinstance(recipe, Decodes):
            metrics |= judge_codes(recipe, recipe, images.float() / 255, project.seed)
        if isinstance(recipe, Samples):
            directory = samples or root / "artifacts" / "samples" / name
            drawn = read_array(directory / "samples.npy")
            metrics |= judge_samples(
                judge_of(root, project, params), images, torch.from_numpy(np.array(drawn))
            )
    if isinstance(recipe, Tags) and isinstance(data, Pairs):
        tones = read_tones(root / "artifacts" / "datasets" / params.dataset / "tones.tsv")
        metrics |= judge_couplets(recipe, data, tones, project.seed)
    out = out or root / "artifacts" / "metrics" / f"{name}.json"
    write_json(out, {key: float(f"{value:.6g}") for key, value in metrics.items()})
    for key, value in sorted(metrics.items()):
        print(f"{name}: {key} {value:.4g}")


def judge_of(root: Path, project: Params, params: RecipeParams) -> Embeds:
    """The trained recipe in whose features samples are judged."""
    judge, _ = trained(root, project.recipes[params.judge], root / "artifacts" / "models" / params.judge)
    if not isinstance(judge, Embeds):
        raise BadInput(
            f"recipes.*.judge: {params.judge!r} has no features to judge images by; take a classifier"
        )
    return judge


def read_tones(path: Path) -> dict[str, str]:
    """The usual tone, 平 or 仄, of each character."""
    with existing(path, "run genpipe prepare first").open(encoding="utf-8", newline="") as file:
        return {row["character"]: row["tone"] for row in csv.DictReader(file, delimiter="\t")}


def recipe_params(root: Path, name: str) -> tuple[Params, RecipeParams]:
    """The project's parameters and those of one recipe."""
    project = read_params(root)
    return project, project.named("recipes", name)
