"""Every recipe, small enough to train in a second, on data of the right shape: the one list that the laws run over."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from genpipe.assembly import build
from genpipe.data.loader import Data
from genpipe.data.opening import open_data
from genpipe.files import write_json
from genpipe.models import RECIPES
from genpipe.params.training import Training
from genpipe.recipe import Recipe
from genpipe.training.logical import Alone, Exchange
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer
from tests.reference import REFERENCE
from tests.reference import block as reference_block

SIDE = 8
TOKENS = ["<unk>", "\n", *"天地日月山水花鳥春秋"]

BLOCKS = {
    "aae": {
        "network": {"latent_dim": 4, "width": 4, "hidden_dim": 16},
        "solvers": {"reconstruct": {"lr": 5e-3}, "critic": {"lr": 1e-3}, "match": {"lr": 1e-3}},
    },
    "ali": {
        "network": {"latent_dim": 4, "width": 4, "feature_dim": 16},
        "solvers": {"critic": {"lr": 1e-3}, "players": {"lr": 1e-3}},
    },
    "classifier": {"network": {"width": 4, "feature_dim": 16}, "solvers": {"nll": {"lr": 5e-3}}},
    "energy": {
        "network": {"width": 4, "num_replay": 16, "chain_steps": 2},
        "how": {"steps": 2},
        "solvers": {"contrastive": {"lr": 1e-3, "betas": [0.0, 0.999]}},
    },
    "energy_gan": {
        "network": {"latent_dim": 4, "width": 4, "feature_dim": 16, "energy_steps": 2},
        "how": {"chain": "mala", "steps": 2},
        "solvers": {"energy": {"lr": 1e-3}, "generator": {"lr": 1e-3}},
    },
    "gan": {
        "network": {"latent_dim": 4, "width": 4, "feature_dim": 8},
        "solvers": {"critic": {"lr": 1e-3}, "generator": {"lr": 1e-3}},
    },
    "glann": {
        "network": {"latent_dim": 4, "width": 4, "noise_dim": 4, "hidden_dim": 16, "num_candidates": 32},
        "batch_size": 16,  # all images within the steps that the law of resuming takes before it stops
        "solvers": {"glo": {"lr": 5e-3}, "imle": {"lr": 5e-3}},
    },
    "coupling_flow": {
        "network": {"num_couplings": 2, "width": 4, "depth": 1},
        "solvers": {"nll": {"lr": 5e-3}},
    },
    "glow": {"network": {"num_steps": 2, "width": 8}, "solvers": {"nll": {"lr": 5e-3}}},
    "mae": {
        "network": {"patch": 2, "width": 8, "decoder_width": 8, "num_blocks": 1, "num_heads": 2},
        "solvers": {"restore": {"optimiser": "adamw", "lr": 1e-2, "betas": [0.9, 0.95]}},
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
    "residual_flow": {
        "network": {"num_blocks": 1, "width": 4},
        "solvers": {"nll": {"lr": 5e-3}},
    },
    "pixelcnn": {
        "network": {"likelihood": "bits", "width": 8, "num_blocks": 2, "first_reach": 2},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "pixelrnn": {
        "network": {"likelihood": "bits", "width": 8, "num_layers": 2, "first_reach": 2},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "vae": {
        "network": {"likelihood": "bernoulli", "latent_dim": 4, "width": 4, "feature_dim": 16},
        "solvers": {"bound": {"lr": 5e-3}},
    },
    "couplet": {
        "kind": "pairs",
        "batches": {"aligned": True},
        "network": {"embedding_dim": 16, "num_layers": 2},
        "solvers": {"nll": {"lr": 1e-2, "warmup": 3}},
    },
    "conditional_lm": {
        "kind": "tagged",
        "network": {"width": 16, "num_blocks": 2, "num_heads": 2, "condition_dim": 8},
        "how": {"max_tokens": 8},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "crf_tagger": {
        "kind": "tagged",
        "network": {"embedding_dim": 16, "num_layers": 2, "num_pairs": 20, "pair_dim": 4},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "text_classifier": {
        "kind": "tagged",
        "data": "labelled",
        "network": {"dim": 16, "num_blocks": 2, "num_heads": 2},
        "solvers": {"nll": {"optimiser": "adamw", "lr": 1e-2}},
    },
    "unilm": {
        "kind": "pairs",
        "network": {"width": 16, "num_blocks": 2, "num_heads": 2, "dropout": 0},
        "how": {"method": "greedy", "max_tokens": 6},
        "solvers": {"nll": {"optimiser": "adamw", "lr": 1e-2}},
    },
    "title_lstm": {
        "kind": "pairs",
        "network": {"width": 16, "num_heads": 2},
        "how": {"method": "greedy", "max_tokens": 6},
        "solvers": {"nll": {"optimiser": "adamw", "lr": 1e-2}},
    },
    "similarity": {
        "kind": "groups",
        "network": {"dim": 16, "loss": "am", "scale": 10},
        "solvers": {"similarity": {"lr": 1e-2}},
    },
    "masked_lm": {
        "kind": "stream",
        "batches": {"time": 12},
        "network": {"dim": 16, "num_blocks": 2, "num_heads": 2},
        "solvers": {"masked": {"optimiser": "lamb", "lr": 1e-2}},
    },
    "ode_rnn": {
        "kind": "trajectory",
        "network": {
            "system": "competition",
            "num_fits": 4,
            "step": 2.0,
            "learn_start": True,
            "resample": True,
        },
        "solvers": {"fit": {"lr": 3e-2}},
    },
}
FALLING = {  # the loss of each recipe that has one which falls; players of a game have none
    "aae": "reconstruct.loss",
    "aae_class": "reconstruct.loss",
    "classifier": "nll.loss",
    "conditional_lm": "nll.loss",
    "conditional_lm_vector": "nll.loss",
    "couplet": "nll.loss",
    "couplet_lines": "lines.loss",
    "coupling_flow": "nll.loss",
    "crf_tagger": "nll.loss",
    "coupling_flow_batch": "nll.loss",
    "coupling_flow_points": "nll.loss",
    "glann": "glo.loss",
    "imle": "imle.loss",
    "glow": "nll.loss",
    "glow_class": "nll.loss",
    "glow_points": "nll.loss",
    "masked_lm": "masked.loss",
    "masked_lm_permuted": "masked.loss",
    "masked_lm_replaced": "masked.loss",
    "masked_lm_runs": "masked.loss",
    "mae": "restore.loss",
    "mae_pixels": "restore.loss",
    "ode_rnn": "fit.loss",
    "ode_rnn_euler": "fit.loss",
    "nice": "nll.loss",
    "residual_flow": "nll.loss",
    "pixelcnn": "nll.loss",
    "pixelcnn_levels": "nll.loss",
    "pixelcnn_logistics": "nll.loss",
    "pixelrnn": "nll.loss",
    "similarity": "similarity.loss",
    "similarity_centre": "similarity.loss",
    "similarity_pairs": "similarity.loss",
    "text_classifier": "nll.loss",
    "title_lstm": "nll.loss",
    "title_lstm_both": "nll.loss",
    "unilm": "nll.loss",
    "unilm_passages": "nll.loss",
    "vae": "bound.loss",
    "vae_class": "bound.negative_elbo",
    "vae_points": "bound.loss",
}
FALLING |= {name: f"{update}.loss" for name in REFERENCE for update in reference_block(name)["solvers"]}
SHARED = {"batch_size": 8, "steps": 6, "checkpoint_every": 2}
# Another network or another loss of a recipe, as a block of params.yaml is: a name, with the name of its recipe in `model`.
PLAYERS = {"critic": {"lr": 1e-3}, "generator": {"lr": 1e-3}}
VARIANTS: Mapping[str, dict] = {
    "couplet_lines": {
        "model": "couplet",
        "kind": "pairs",
        "batches": {"aligned": True},
        "network": {"embedding_dim": 16, "num_layers": 2, "ngram": 3},
        "solvers": {"nll": {"lr": 1e-2, "warmup": 3}, "lines": {"lr": 1e-2, "lr_multipliers": {"level": 10}}},
    },
    "masked_lm_permuted": {
        "model": "masked_lm",
        "kind": "stream",
        "batches": {"time": 12},
        "network": {
            "objective": "permuted",
            "rate": 0.3,
            "dim": 16,
            "num_blocks": 2,
            "num_heads": 2,
            "pre_norm": True,
            "talking_heads": "both",
        },
        "solvers": {"masked": {"lr": 1e-2}},
    },
    "masked_lm_replaced": {
        "model": "masked_lm",
        "kind": "stream",
        "batches": {"time": 12},
        "network": {"objective": "replaced", "dim": 16, "num_blocks": 2, "num_heads": 2, "masking": "tokens"},
        "solvers": {"masked": {"lr": 1e-2}, "replaced": {"lr": 1e-2}},
    },
    "masked_lm_runs": {
        "model": "masked_lm",
        "kind": "stream",
        "batches": {"time": 12},
        "network": {
            "masking": "runs",
            "rate": 0.4,
            "similar_share": 0.5,
            "drop_token": 0.2,
            "dim": 16,
            "num_blocks": 2,
            "num_heads": 2,
            "embedding_dim": 8,
            "key_size": 4,
            "attention": ["product", "dense"],
            "recompute": True,
        },
        "solvers": {"masked": {"lr": 1e-2}},
    },
    "wgan_gp": {
        "model": "gan",
        "network": {
            "latent_dim": 4,
            "width": 4,
            "feature_dim": 16,
            "divergence": "wgan",
            "penalty": "two_sided",
            "critic_steps": 2,
        },
        "solvers": PLAYERS,
    },
    "gan_single": {  # and conditional
        "model": "gan",
        "network": {
            "latent_dim": 4,
            "width": 4,
            "feature_dim": 8,
            "divergence": "rasgan",
            "penalty": "r1",
            "schedule": "single",
            "conditional": True,
        },
        "normalisations": {r"critic.*weight": "spectral_convolution"},
        "solvers": {"gan": {"optimiser": "rmsprop", "lr": 1e-3}},
    },
    "gan_old": {
        "model": "gan",
        "network": {
            "architecture": "resnet",
            "latent_dim": 4,
            "width": 4,
            "feature_dim": 8,
            "dropout": 0.2,
            "old_weight": 5.0,
            "generator_steps": 2,
        },
        "solvers": PLAYERS,
    },
    "gan_points": {
        "model": "gan",
        "kind": "points",
        "network": {
            "architecture": "mlp",
            "latent_dim": 2,
            "width": 8,
            "feature_dim": 8,
            "divergence": "gan_qp_l1",
        },
        "solvers": PLAYERS,
    },
    "aae_class": {
        "model": "aae",
        "network": {"latent_dim": 4, "width": 4, "hidden_dim": 16, "conditional": True, "prior": "modes"},
        "solvers": {"reconstruct": {"lr": 5e-3}, "critic": {"lr": 1e-3}, "match": {"lr": 1e-3}},
    },
    "bigan_qp": {
        "model": "ali",
        "network": {
            "form": "qp",
            "encoder": "point",
            "conditional": True,
            "dropout": 0,
            "critic_steps": 2,
            "code_weight": 2,
            "example_weight": 3,
            "latent_dim": 4,
            "width": 4,
            "feature_dim": 16,
        },
        "solvers": {"critic": {"lr": 1e-3}, "players": {"lr": 1e-3}},
    },
    "imle": {
        "model": "glann",
        "network": {"codes": False, "latent_dim": 4, "width": 4, "num_candidates": 32},
        "solvers": {"imle": {"lr": 5e-3}},
    },
    "vae_class": {
        "model": "vae",
        "network": {
            "likelihood": "gaussian",
            "deviations": "pixel",
            "conditional": True,
            "architecture": "mlp",
            "latent_dim": 4,
            "width": 16,
            "feature_dim": 16,
        },
        "solvers": {"bound": {"lr": 5e-3, "lr_multipliers": {"log_deviation": 10}}},
    },
    "vae_points": {
        "model": "vae",
        "kind": "points",
        "network": {"architecture": "mlp", "latent_dim": 4, "width": 16, "feature_dim": 16},
        "how": {"observe": True},
        "solvers": {"bound": {"lr": 2e-2}},
    },
    "coupling_flow_batch": {  # additive, with the class
        "model": "coupling_flow",
        "network": {
            "coupling": "additive",
            "norm": "batch",
            "num_couplings": 2,
            "width": 4,
            "depth": 1,
            "alpha": 0,
            "latents": "logistic",
            "conditional": True,
        },
        "solvers": {"nll": {"lr": 5e-3}},
    },
    "coupling_flow_points": {
        "model": "coupling_flow",
        "kind": "points",
        "network": {"num_couplings": 3, "width": 16},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "glow_class": {
        "model": "glow",
        "network": {
            "coupling": "additive",
            "mixing": "lu",
            "num_scales": 2,
            "num_steps": 1,
            "width": 8,
            "conditional": True,
        },
        "ema": 0.9,
        "how": {"temperature": 0.7},
        "solvers": {"nll": {"lr": 5e-3}},
    },
    "glow_points": {
        "model": "glow",
        "kind": "points",
        "network": {"num_steps": 3, "width": 16},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "energy_class": {
        "model": "energy",
        "network": {"width": 4, "num_replay": 16, "chain_steps": 2, "preset": "igebm", "conditional": True},
        "how": {"steps": 2},
        "normalisations": {r"layers\.[0247]\.weight": "spectral"},
        "solvers": {"contrastive": {"lr": 1e-3, "betas": [0.0, 0.999]}},
    },
    "energy_points": {
        "model": "energy",
        "kind": "points",
        "network": {"width": 8, "num_replay": 16, "chain_steps": 2, "preset": "langevin"},
        "how": {"steps": 2},
        "solvers": {"contrastive": {"lr": 1e-3}},
    },
    "mae_pixels": {
        "model": "mae",
        "network": {
            "patch": 4,
            "width": 8,
            "decoder_width": 12,
            "num_blocks": 1,
            "num_heads": 2,
            "hidden_share": 0.5,
            "drop_token": 0.5,
            "normalise": False,
        },
        "solvers": {"restore": {"lr": 5e-3}},
    },
    "energy_gan_points": {
        "model": "energy_gan",
        "kind": "points",
        "network": {
            "latent_dim": 3,
            "width": 16,
            "feature_dim": 8,
            "energy_steps": 2,
            "architecture": "mlp",
            "entropy": "infogan",
        },
        "how": {"chain": "langevin", "steps": 2},
        "solvers": {"energy": {"lr": 1e-3}, "generator": {"lr": 1e-3}},
    },
    "ode_rnn_euler": {  # each fit with all observations, from a given state
        "model": "ode_rnn",
        "kind": "trajectory",
        "network": {"system": "predator", "method": "euler", "num_fits": 3},
        "solvers": {"fit": {"lr": 3e-2}},
    },
    "residual_flow_series": {
        "model": "residual_flow",
        "network": {
            "num_stages": 1,
            "num_blocks": 1,
            "width": 4,
            "activation": "elu",
            "log_det": "series",
            "num_terms": 3,
        },
        "ema": 0.9,
        "solvers": {"nll": {"lr": 5e-3}},
    },
    "residual_flow_points": {
        "model": "residual_flow",
        "kind": "points",
        "network": {"num_blocks": 2, "width": 8},
        "solvers": {"nll": {"lr": 2e-2}},
    },
    "pixelcnn_levels": {
        "model": "pixelcnn",
        "network": {"likelihood": "levels", "width": 8, "num_blocks": 2, "first_reach": 2},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "pixelcnn_logistics": {  # and conditional
        "model": "pixelcnn",
        "network": {
            "likelihood": "logistics",
            "conditional": True,
            "width": 8,
            "num_blocks": 2,
            "first_reach": 2,
        },
        "how": {"temperature": 0.9},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "ogan_class": {
        "model": "ogan",
        "network": {"latent_dim": 8, "width": 4, "conditional": True},
        "ema": 0.9,
        "solvers": {"ogan": {"optimiser": "rmsprop", "lr": 1e-3}},
    },
    "conditional_lm_whole": {  # with every part of the network, and without texts that are too long
        "model": "conditional_lm",
        "kind": "tagged",
        "batches": {"max_length": 5, "whole": True},
        "network": {
            "width": 16,
            "num_blocks": 2,
            "num_heads": 2,
            "condition_dim": 8,
            "bottleneck": 4,
            "key_size": 12,
            "embedding_dim": 6,
            "talking_heads": "both",
            "pre_norm": False,
            "num_positions": 9,
        },
        "how": {"method": "beam", "max_tokens": 4},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "conditional_lm_vector": {  # captions
        "model": "conditional_lm",
        "kind": "captions",
        "network": {"width": 16, "num_blocks": 2, "num_heads": 2, "condition_dim": 8, "weights": "scaled"},
        "how": {"method": "greedy", "max_tokens": 6},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "similarity_pairs": {  # of a transformer, by the pairs of a slice: two groups in each
        "model": "similarity",
        "kind": "groups",
        "batch_size": 16,
        "network": {
            "encoder": "transformer",
            "dim": 16,
            "num_blocks": 2,
            "num_heads": 2,
            "embedding_dim": 8,
            "loss": "info_nce",
            "hardest": 2,
        },
        "solvers": {"similarity": {"lr": 1e-2}},
    },
    "similarity_centre": {
        "model": "similarity",
        "kind": "groups",
        "network": {"dim": 16, "loss": "centre", "num_blocks": 2, "dropout": 0.1},
        "solvers": {"similarity": {"lr": 1e-2}},
    },
    "title_lstm_both": {  # two decoders that look at each other, without the prior
        "model": "title_lstm",
        "kind": "pairs",
        "network": {"width": 16, "num_layers": 1, "num_heads": 2, "prior": False, "directions": "both"},
        "how": {"method": "beam", "max_tokens": 4},
        "solvers": {"nll": {"lr": 1e-2}},
    },
    "unilm_passages": {  # reading comprehension by a vote, with every part of the attention
        "model": "unilm",
        "kind": "passages",
        "network": {
            "reads": "passages",
            "width": 16,
            "num_blocks": 2,
            "num_heads": 2,
            "key_size": 12,
            "talking_heads": "both",
            "pre_norm": True,
            "embedding_dim": 6,
        },
        "how": {"method": "beam", "max_tokens": 4, "extractive": True},
        "solvers": {"nll": {"optimiser": "adamw", "lr": 1e-2}},
    },
}
ALL = {**BLOCKS, **VARIANTS, **{name: reference_block(name) for name in REFERENCE}}
MODELS = {  # the laws run over these
    **RECIPES,
    **{name: RECIPES[own["model"]] for name, own in VARIANTS.items()},
    **{name: row.make for name, row in REFERENCE.items()},
}
NOT_OF_TRAINING = ("kind", "data", "how", "model")


def kind_of(name: str) -> str:
    """The kind of data that a recipe trains on."""
    return ALL[name].get("kind", "images")


def data_of(name: str) -> str:
    """The name of its data: that of the kind, where a kind has one."""
    return ALL[name].get("data", kind_of(name))


def model_of(name: str) -> str:
    """The name of its recipe."""
    return ALL[name].get("model", name)


def how_of(name: str) -> dict:
    """How its samples are drawn."""
    return ALL[name].get("how", {})


def training(name: str, **changes) -> dict:
    """How a tiny recipe is trained, as params.yaml says it."""
    own = {key: value for key, value in ALL[name].items() if key not in NOT_OF_TRAINING}
    return {**SHARED, **own, **changes}


def block(name: str, **changes) -> dict:
    """A tiny recipe, as params.yaml says it."""
    return {
        "model": model_of(name),
        "data": f"encoded/{data_of(name)}",
        "train": training(name, **changes),
        "sample": {"num": 24, "how": how_of(name)},
        "start": "none",
        "judge": "models/classifier",
        "validator": "none",
    }


def describe(directory: Path, kind: str, facts: dict, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """data.json, as `genpipe prepare` and `genpipe encode` write it."""
    write_json(directory / "data.json", {"kind": kind, "splits": list(splits), "facts": facts})
    if "num_tokens" in facts:
        codec = {"tokenizer": "char", "normalise": [], "tokenizer_file": None}
        write_json(directory / "codec.json", codec)
    return directory


def write_images(directory: Path) -> Path:
    """Two classes of pictures: bright above, bright below."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 48), ("test", 48)):
        labels = (np.arange(n) % 2).astype(np.uint8)
        images = rng.integers(0, 80, (n, SIDE, SIDE), dtype=np.uint8)
        images[labels == 0, : SIDE // 2] += 150
        images[labels == 1, SIDE // 2 :] += 150
        np.save(directory / f"{split}_images.npy", images[:, None])
        np.save(directory / f"{split}_labels.npy", labels)
    return describe(directory, "images", {"image_shape": [1, SIDE, SIDE], "num_images": 48, "num_classes": 2})


def token_facts(**more: int) -> dict[str, int]:
    """The facts of data of token ids: the special ids follow the vocabulary."""
    size = len(TOKENS)
    marks = {"pad": size, "start": size + 1, "end": size + 2, "sep": size + 3, "mask": size + 4}
    return {"num_tokens": size + 5, **marks, **more}


def write_texts(directory: Path, split: str, field: str, texts: list) -> None:
    """One field of a split: ids, and where each text begins."""
    np.save(directory / f"{split}.{field}.ids.npy", np.concatenate(texts).astype(np.uint16))
    np.save(directory / f"{split}.{field}.offsets.npy", np.cumsum([0, *map(len, texts)]).astype(np.int64))


def write_pairs(directory: Path) -> Path:
    """Couplets of three and five characters; each character answers its neighbour in the vocabulary."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocabulary.json", TOKENS)
    rng = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 12)):
        upper = [rng.integers(2, len(TOKENS), 3 + 2 * (i % 2)) for i in range(n)]
        write_texts(directory, split, "source", upper)
        write_texts(directory, split, "target", [line ^ 1 for line in upper])
    return describe(directory, "pairs", token_facts(max_length=5))


def write_points(directory: Path) -> Path:
    """Points about two centres in the plane."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 64), ("test", 40)):
        points = rng.normal(0, 0.3, (n, 2)) + np.where(np.arange(n)[:, None] % 2, 1.0, -1.0)
        np.save(directory / f"{split}_points.npy", points.astype(np.float32))
    return describe(directory, "points", {"dim": 2})


def write_stream(directory: Path) -> Path:
    """Documents that count up through the vocabulary, in words of two characters."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocabulary.json", TOKENS)
    for split, n in (("train", 30), ("test", 10)):
        texts = [np.arange(5 + i % 4) % 10 + 2 for i in range(n)]
        write_texts(directory, split, "text", texts)
        words = np.concatenate([np.arange(len(text)) % 2 == 0 for text in texts])
        np.save(directory / f"{split}.text.words.npy", words.astype(np.uint8))
    return describe(directory, "stream", token_facts())


def write_passages(directory: Path) -> Path:
    """Questions with one to three passages; the answer is how the first one begins."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocabulary.json", TOKENS)
    rng = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 20)):
        passages = [[rng.integers(2, len(TOKENS), 2 + i % 4) for _ in range(1 + i % 3)] for i in range(n)]
        write_texts(directory, split, "question", [rng.integers(2, len(TOKENS), 1 + i % 3) for i in range(n)])
        for field, texts in (("passages", passages), ("answer", [[own[0][:2]] for own in passages])):
            write_texts(directory, split, field, [text for own in texts for text in own])
            np.save(directory / f"{split}.{field}.items.npy", np.cumsum([0, *map(len, texts)]))
    return describe(directory, "passages", token_facts(max_length=5))


def write_groups(directory: Path) -> Path:
    """Groups of texts that begin with the same two characters; one more split of groups that training does not see."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocabulary.json", TOKENS)
    rng = np.random.default_rng(0)
    for split, first in (("train", 0), ("test", 0), ("unseen", 6)):
        groups = np.repeat(np.arange(6), 3) + first
        texts = [[2 + g % 9, 3 + g // 2, *rng.integers(2, 11, 1 + i % 3)] for i, g in enumerate(groups)]
        write_texts(directory, split, "text", texts)
        np.save(directory / f"{split}.group.npy", groups)
    return describe(directory, "groups", token_facts(num_groups=6, max_length=5), ("train", "test", "unseen"))


def write_tagged(directory: Path) -> Path:
    """Texts whose tags say whether a character is in the second half of the vocabulary, and with two conditions.

    `first` is whether the first character is in that half, `long` whether there are more than four characters.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocabulary.json", TOKENS)
    rng = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 30)):
        texts = [rng.integers(2, len(TOKENS), 2 + i % 5) for i in range(n)]
        write_texts(directory, split, "text", texts)
        np.save(directory / f"{split}.tags.npy", (np.concatenate(texts) > 6).astype(np.uint8))
        np.save(directory / f"{split}.first.npy", np.array([text[0] > 6 for text in texts], np.int64))
        np.save(directory / f"{split}.long.npy", np.array([len(text) > 4 for text in texts], np.int64))
    names = {"first": ["low", "high"], "long": ["no", "yes"]}
    return describe(directory, "tagged", {**token_facts(num_tags=2, max_length=6), "conditions": names})


def write_labelled(directory: Path) -> Path:
    """Texts whose label says whether most of their characters are in the second half of the vocabulary."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocabulary.json", TOKENS)
    rng = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 30)):
        labels = np.arange(n) % 2
        texts = [rng.integers(2, 8, 2 + i % 5) + 4 * label for i, label in enumerate(labels)]
        write_texts(directory, split, "text", texts)
        np.save(directory / f"{split}.label.npy", labels)
    names = {"classes": ["low", "high"]}
    return describe(directory, "tagged", {**token_facts(num_classes=2, max_length=6), **names})


def write_captions(directory: Path) -> Path:
    """Texts that begin with the character whose number of the vector is the largest, and with pictures, bright where that is."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocabulary.json", TOKENS)
    rng = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 30)):
        largest = rng.integers(0, 4, n)
        texts = [[2 + kind, *rng.integers(6, 9, i % 3)] for i, kind in enumerate(largest)]
        write_texts(directory, split, "text", texts)
        vectors = rng.normal(0, 0.3, (n, 4)) + 2 * np.eye(4)[largest]
        np.save(directory / f"{split}.vector.npy", vectors.astype(np.float32))
        images = np.full((n, 3, 4, 4), 30, np.uint8)
        images[np.arange(n), :, largest] = 220
        np.save(directory / f"{split}_images.npy", images)
    return describe(directory, "captions", token_facts(vector_dim=4, max_length=3))


def write_trajectory(directory: Path) -> Path:
    """Two populations that approach their limits; one of them is not always observed."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, times in (
        ("train", np.arange(1.0, 17)),
        ("test", np.arange(0.5, 16)),
        ("later", np.arange(17.0, 21)),
    ):
        values = np.stack([100 - 50 * np.exp(-times / 5), 20 + 60 * np.exp(-times / 8)], 1)
        values[::4, 1] = np.nan if split == "train" else values[::4, 1]
        np.save(directory / f"{split}_times.npy", times)
        np.save(directory / f"{split}_values.npy", values.astype(np.float32))
    facts = {
        "dim": 2,
        "initial_state": [50.0, 80.0],
        "first_time": 0.0,
        "last_time": 16.0,
        "scales": [90.0, 50.0],
    }
    more = {"num_observations": 16, "coordinates": ["first", "second"]}
    return describe(directory, "trajectory", {**facts, **more}, ("train", "test", "later"))


DATA: Mapping[str, Callable[[Path], Path]] = {
    "images": write_images,
    "points": write_points,
    "stream": write_stream,
    "pairs": write_pairs,
    "passages": write_passages,
    "groups": write_groups,
    "tagged": write_tagged,
    "labelled": write_labelled,
    "captions": write_captions,
    "trajectory": write_trajectory,
}


def data_for(name: str, root: Path) -> Data:
    """The tiny data of a recipe, written below `root`."""
    own = data_of(name)
    directory = DATA[own](root / "artifacts" / "encoded" / own)
    return open_data(directory, ALL[name].get("batches", {}))


def recipe_of(name: str, data: Data, seed: int = 0) -> Recipe:
    """A new tiny recipe."""
    return build(model_of(name), ALL[name]["network"], data.facts, seed)


def trainer_of(
    name: str, data: Data, directory: Path, seed: int = 0, exchange: Exchange | None = None, **changes
) -> Trainer:
    """A trainer of a tiny recipe, whose run is in `directory`."""
    params = Training.model_validate(training(name, **changes))
    return Trainer(recipe_of(name, data, seed), data, params, seed, exchange or Alone(), Run(directory))


def names_with(*capabilities: type, among: Mapping[str, type[Recipe]] = RECIPES) -> list[str]:
    """The recipes of genpipe, or of another list, that have all of these capabilities."""
    return [
        name
        for name, make in among.items()
        if all(issubclass(make, capability) for capability in capabilities)
    ]


class Pictures:
    """The same images in both splits."""

    def __init__(self, images: torch.Tensor):
        self.images = images
        self.facts = {"image_shape": images.shape[1:]}

    def split(self, name):
        return ({"images": part} for part in self.images.split(100))

    def units(self, x):
        return torch.full((len(x["images"]),), x["images"][0].numel())
