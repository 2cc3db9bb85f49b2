"""A recipe: train it, draw from it, judge it."""

import argparse
from pathlib import Path

from genpipe.cli import using
from genpipe.cli.arguments import (
    Commands,
    is_of_model,
    new_directory,
    new_file,
    range_of_workers,
    seed,
    steps,
)
from genpipe.cli.using import MODEL
from genpipe.files import TRAINED
from genpipe.sampling.outputs import SAMPLES


def add(commands: Commands) -> None:
    """Add the commands about recipes."""
    _add_features(commands)
    _add_train(commands)
    _add_sample_and_evaluate(commands)


def _add_features(commands: Commands) -> None:
    """What a trained model finds in images, as data of another recipe."""
    features = commands.add_parser(
        "features",
        help="write texts beside the features that a trained model finds in their images",
        epilog="example: genpipe features emoji_names, a block of features in params.yaml",
    )
    features.add_argument("block", metavar="NAME")
    features.set_defaults(run=_features)


def _add_train(commands: Commands) -> None:
    """Training."""
    train = commands.add_parser(
        "train",
        help="train a recipe of params.yaml; goes on from the last checkpoint",
        epilog="the same weights come out whatever --workers is (on GPUs: from 1 on); example: genpipe train nice --workers 2 --steps 400 --out /tmp/nice",
    )
    train.add_argument("recipe")
    train.add_argument(
        "--workers",
        type=range_of_workers,
        metavar="N",
        help="training processes; 0 trains in process; 1-4 is elastic, from one to four as Ray nodes come and go; "
        "default: cluster.workers",
    )
    train.add_argument(
        "--executor",
        choices=["auto", "local", "ray"],
        help="processes of this machine, Ray, or Ray where a cluster is named or GPUs are needed; default: cluster.executor",
    )
    train.add_argument(
        "--steps", type=steps, metavar="S", help="instead of recipes.RECIPE.train.steps; needs --out"
    )
    train.add_argument("--seed", type=seed, metavar="K", help="instead of params.yaml's seed; needs --out")
    train.add_argument(
        "--out", type=new_directory(TRAINED), metavar="DIR", help="default: artifacts/models/RECIPE"
    )
    train.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="write the metrics there too; needs pip install tensorboard",
    )
    train.set_defaults(run=_train)


def _add_sample_and_evaluate(commands: Commands) -> None:
    """What is done with a trained recipe."""
    sample = commands.add_parser(
        "sample",
        help="draw from a trained recipe, or from any trained model",
        description="Draw from a recipe of params.yaml, as the stage does; or, with --num, --class, --given, --how, or the directory of a model, "
        "draw images, points or texts from a trained model, for which only its directory is read.",
        epilog="examples: genpipe sample ogan; genpipe sample nice --num 64 --how temperature=0.6 --out drawn; "
        "genpipe sample gan_conditional --class 7 --num 64; "
        "genpipe sample energy@prod --seed 7 --out drawn. Number j of a seed is the same whatever N is.",
    )
    sample.add_argument(
        "recipe",
        metavar="RECIPE|MODEL",
        help=f"a recipe of params.yaml, or, with an option of a model, {MODEL}",
    )
    sample.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="another trained model than artifacts/models/RECIPE; needs --out",
    )
    sample.add_argument(
        "--seed", type=seed, metavar="K", help="instead of params.yaml's seed (of a model: 0); needs --out"
    )
    sample.add_argument(
        "--out",
        type=new_directory(SAMPLES),
        metavar="DIR",
        help="default: artifacts/samples/RECIPE; of a model: MODEL-samples in this directory",
    )
    using.add_sample(sample)
    sample.set_defaults(run=_sample)

    evaluate = commands.add_parser("evaluate", help="judge a trained recipe on its test data")
    evaluate.add_argument("recipe")
    evaluate.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="another trained model than artifacts/models/RECIPE; needs --out",
    )
    evaluate.add_argument("--samples", type=Path, metavar="DIR", help="its samples; needed with --model")
    evaluate.add_argument(
        "--out", type=new_file, metavar="FILE", help="default: artifacts/metrics/RECIPE.json"
    )
    evaluate.set_defaults(run=_evaluate)


def _features(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.features import write_features
    from genpipe.params.project import read_params

    write_features(root, arguments.block, read_params(root).named("features", arguments.block))


def _train(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe import experiment

    experiment.train(
        root,
        arguments.recipe,
        workers=arguments.workers,
        steps=arguments.steps,
        seed=arguments.seed,
        out=arguments.out,
        tensorboard=arguments.tensorboard,
        executor=arguments.executor,
    )


def _sample(root: Path, arguments: argparse.Namespace) -> None:
    if is_of_model(arguments):
        using.sample(root, arguments)
        return
    from genpipe import experiment

    experiment.sample(root, arguments.recipe, model=arguments.model, seed=arguments.seed, out=arguments.out)


def _evaluate(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe import experiment

    experiment.evaluate(
        root, arguments.recipe, model=arguments.model, samples=arguments.samples, out=arguments.out
    )
