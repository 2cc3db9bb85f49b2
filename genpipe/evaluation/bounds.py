"""Bounds on the likelihood of models with latents: the ELBO, and the importance-weighted one, which lies between it and the truth.

In nats an example, negated, so that less is better. Images of bytes have a probability: pixels dequantised to (i + u)/256
have a density, whose mean logarithm plus D ln (1/256) bounds that of the bytes (Theis, van den Oord, Bethge, 2015).
"""

import math

import torch
from torch import Tensor

from genpipe.capabilities import Bounds, Example
from genpipe.data.loader import Data, derived_seed
from genpipe.evaluation.density import gaussian_nats
from genpipe.evaluation.features import beginning
from genpipe.evaluation.judge import Trial
from genpipe.nn.pixels import dequantised
from genpipe.sampling.draw import chunks, rows_of, whole

NUM_EXAMPLES = 500
NUM_LATENTS = 32  # for each example
NUM_FITTED = 10_000  # training images whose pixels the baseline counts, at most
LEVELS = {"values": 256, "bits": 2}


def judge_bounds(trial: Trial) -> dict[str, float]:
    """Both bounds on the first examples of the split, and a baseline of independent pixels, or of a Gaussian for points."""
    x = beginning(trial.data, NUM_EXAMPLES, trial.split)
    elbo, importance = bounds(trial.recipe, x, NUM_LATENTS, trial.seed)
    counts = {"bound_num_examples": float(rows_of(x)), "bound_num_latents": float(NUM_LATENTS)}
    metrics = {"negative_elbo": -elbo, "negative_importance_bound": -importance, **counts}
    if "points" in x:
        train = whole(trial.data, "train")["points"].double()
        return metrics | {"negative_elbo_gaussian": gaussian_nats(train, x["points"].double())}
    levels = LEVELS[trial.recipe.observes]
    metrics["negative_elbo_pixelwise"] = pixelwise_nats(trial.data, x["images"], levels)
    if trial.recipe.observes == "bits":
        return metrics | nats_of_bits(trial)
    if trial.recipe.observes == "values":
        pixels = float(trial.data.units(x)[0])
        metrics["bits_per_dim"] = -importance / pixels / math.log(2)
    return metrics


def nats_of_bits(trial: Trial) -> dict[str, float]:
    """The negative ELBO of all images of the split, by one latent each, beside what models without latents say exactly."""
    x = whole(trial.data, trial.split)
    elbo, _ = bounds(trial.recipe, x, 1, trial.seed)
    return {
        "nats_per_image": -elbo,
        "nats_per_image_pixelwise": pixelwise_nats(trial.data, x["images"], levels=2),
    }


def bounds(model: Bounds, x: Example, num: int, seed: int) -> tuple[float, float]:
    """Mean ELBO and mean importance-weighted bound in nats an example, by `num` latents for each."""
    elbo, importance = [], []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for number, part in enumerate(chunks(x)):
            torch.manual_seed(derived_seed(seed, "bound", number))
            seen, offset = observed(model, part)
            weights = model.log_weights(seen, num).double() + offset
            elbo.append(weights.mean(1))
            importance.append(torch.logsumexp(weights, 1) - math.log(num))
    return float(torch.cat(elbo).mean()), float(torch.cat(importance).mean())


def observed(model: Bounds, x: Example) -> tuple[Example, float]:
    """What a model observes of examples, and what is added to a log-density to get the log-probability of bytes."""
    if "images" not in x:
        return x, 0.0
    if model.observes == "bits":
        return {**x, "images": bits(x["images"]).float()}, 0.0
    return {**x, "images": dequantised(x["images"])}, -math.log(256) * x["images"][0].numel()


def bits(images: Tensor) -> Tensor:
    """Which bytes are bright: i ≥ 128."""
    return images >= 128


def pixelwise_nats(data: Data, images: Tensor, levels: int) -> float:
    """Nats an image, uint8 [n, …], of 2 or 256 levels under the frequencies of each pixel in training, one added to each count."""
    train = beginning(data, NUM_FITTED, "train")["images"].flatten(1)
    train, test = ((bits(x) if levels == 2 else x).long() for x in (train, images.flatten(1)))
    place = torch.arange(test.shape[1]) * levels
    counts = torch.zeros(test.shape[1] * levels, dtype=torch.int64)
    for part in train.split(100):
        counts += torch.bincount((part + place).flatten(), minlength=len(counts))
    frequencies = (counts + 1).double() / (len(train) + levels)
    return float(-frequencies.log()[test + place].sum(1).mean())
