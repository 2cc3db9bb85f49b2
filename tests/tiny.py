"""Every recipe, small enough to train in a second, on data of the right shape: the one list that the laws run over."""

from pathlib import Path

import numpy as np

from genpipe.assembly import build
from genpipe.data.images import Images
from genpipe.data.loader import Data
from genpipe.data.pairs import Pairs
from genpipe.files import write_json
from genpipe.models import RECIPES
from genpipe.params.training import Training
from genpipe.recipe import Recipe
from genpipe.training.logical import Alone, Exchange
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer

SIDE = 8
TOKENS = ["<unk>", "\n", *"天地日月山水花鳥春秋"]

BLOCKS = {
    "aae": {
        "network": {"latent_dim": 4, "width": 4, "hidden_dim": 16},
        "solvers": {"reconstruct": {"lr": 5e-3}, "critic": {"lr": 1e-3}, "match": {"lr": 1e-3}},
    },
    "classifier": {"network": {"width": 4, "feature_dim": 16}, "solvers": {"nll": {"lr": 5e-3}}},
    "energy": {
        "network": {"width": 4, "num_replay": 16, "chain_steps": 2, "sample_steps": 2},
        "solvers": {"contrastive": {"lr": 1e-3, "betas": [0.0, 0.999]}},
    },
    "glann": {
        "network": {"latent_dim": 4, "width": 4, "noise_dim": 4, "hidden_dim": 16, "num_candidates": 32},
        "batch_size": 16,  # all images within the steps that the law of resuming takes before it stops
        "solvers": {"glo": {"lr": 5e-3}, "imle": {"lr": 5e-3}},
    },
    "nice": {
        "network": {"hidden_dim": 16, "num_hidden": 1},
        "solvers": {"nll": {"lr": 5e-3, "lr_multipliers": {"log_scale": 10}}},
    },
    "ogan": {
        "network": {"latent_dim": 8, "width": 4},
        "solvers": {
            "ogan": {"optimiser": "rmsprop", "lr": 1e-3, "gradients": [{"do": "clip_norm", "bound": 5}]}
        },
    },
    "wgan_gp": {
        "network": {"latent_dim": 4, "width": 4, "feature_dim": 16, "critic_steps": 2},
        "solvers": {"critic": {"lr": 1e-3}, "generator": {"lr": 1e-3}},
    },
    "couplet": {
        "network": {"embedding_dim": 16, "num_layers": 2},
        "solvers": {"nll": {"lr": 1e-2, "warmup": 3}},
    },
}
FALLING = {  # the loss of each recipe that has one which falls; players of a game have none
    "aae": "reconstruct.loss",
    "classifier": "nll.loss",
    "couplet": "nll.loss",
    "glann": "glo.loss",
    "nice": "nll.loss",
}
SHARED = {"batch_size": 8, "steps": 6, "checkpoint_every": 2}


def training(name: str, **changes) -> dict:
    """How a tiny recipe is trained, as params.yaml says it."""
    return {**SHARED, **BLOCKS[name], **changes}


def block(name: str, **changes) -> dict:
    """A tiny recipe, as params.yaml says it."""
    data = "encoded/couplets" if name == "couplet" else "datasets/digits"
    train = training(name, **changes)
    return {
        "model": name,
        "dataset": "tiny",
        "data": data,
        "train": train,
        "num_samples": 24,
        "judge": "classifier",
    }


def write_images(directory: Path) -> Path:
    """Two classes of pictures: bright above, bright below."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 48), ("test", 48)):
        labels = (np.arange(n) % 2).astype(np.uint8)
        images = rng.integers(0, 80, (n, SIDE, SIDE), dtype=np.uint8)
        images[labels == 0, : SIDE // 2] += 150
        images[labels == 1, SIDE // 2 :] += 150
        np.save(directory / f"{split}_images.npy", images)
        np.save(directory / f"{split}_labels.npy", labels)
    return directory


def write_pairs(directory: Path) -> Path:
    """Couplets of three and five characters; each character answers its neighbour in the vocabulary."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocabulary.json", TOKENS)
    rng = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 12)):
        documents = []
        for i in range(n):
            upper = rng.integers(2, len(TOKENS), 3 + 2 * (i % 2))
            documents.append(np.concatenate([upper, [1], upper ^ 1]))
        offsets = np.cumsum([0, *map(len, documents)])
        np.save(directory / f"{split}.ids.npy", np.concatenate(documents).astype(np.uint16))
        np.save(directory / f"{split}.offsets.npy", offsets.astype(np.int64))
    return directory


def data_for(name: str, root: Path) -> Images | Pairs:
    """The tiny data of a recipe, written below `root`."""
    if name == "couplet":
        return Pairs(write_pairs(root / "artifacts" / "encoded" / "couplets"))
    return Images(write_images(root / "artifacts" / "datasets" / "digits"))


def recipe_of(name: str, data: Data, seed: int = 0) -> Recipe:
    """A new tiny recipe."""
    return build(name, BLOCKS[name]["network"], data.facts, seed)


def trainer_of(
    name: str, data: Data, directory: Path, seed: int = 0, exchange: Exchange | None = None, **changes
) -> Trainer:
    """A trainer of a tiny recipe, whose run is in `directory`."""
    params = Training.model_validate(training(name, **changes))
    return Trainer(recipe_of(name, data, seed), data, params, seed, exchange or Alone(), Run(directory))


def names_with(*capabilities: type) -> list[str]:
    """The recipes that have all of these capabilities."""
    return [name for name, make in RECIPES.items() if all(issubclass(make, c) for c in capabilities)]
