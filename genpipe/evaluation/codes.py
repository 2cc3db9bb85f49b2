"""How well an encoder inverts a decoder, and how well the pair reconstructs."""

import torch
from torch import Tensor

from genpipe.capabilities import Decodes, Encodes, Example
from genpipe.data.loader import derived_seed
from genpipe.evaluation.judge import Trial
from genpipe.sampling.draw import CHUNK, first, reconstruct, whole
from genpipe.sampling.panels import as_values

NUM_CODES = 1000


def judge_codes(trial: Trial) -> dict[str, float]:
    """ρ, and the reconstruction of images in [0, 1] beside two that know nothing of the image."""
    test = as_values(whole(trial.data, trial.split))
    images = test["images"]
    given = first(trial.data, CHUNK, trial.split)
    return {
        "latent_correlation": latent_correlation(trial.recipe, trial.recipe, NUM_CODES, trial.seed, given),
        "reconstruction_mse": mean_squared_error(images, reconstruct(trial.recipe, trial.recipe, test)),
        "reconstruction_mse_mean_image": mean_squared_error(images, images.mean(0, keepdim=True)),
        "reconstruction_mse_other_image": mean_squared_error(images, images.roll(1, 0)),
    }


def latent_correlation(encoder: Encodes, decoder: Decodes, n: int, seed: int, given: Example) -> float:
    """Mean Pearson correlation ρ between z ~ N(0, I) and encode(decode(z)) (O-GAN, archives/6409).

    `given` has the conditions of CHUNK codes.
    """
    conditions = {name: value for name, value in given.items() if name != "images"}
    total = 0.0
    with torch.no_grad():
        for number in range(n // CHUNK):
            generator = torch.Generator().manual_seed(derived_seed(seed, "codes", number))
            z = torch.randn(CHUNK, decoder.latent_dim, generator=generator)
            code = encoder.encode({**conditions, **decoder.decode(z, conditions)})
            total += float(
                torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(z, code, strict=True)])
                .double()
                .sum()
            )
    return total / (n // CHUNK * CHUNK)


def mean_squared_error(a: Tensor, b: Tensor) -> float:
    """Mean squared difference of pixels in [0, 1]."""
    return float((a - b).double().square().mean())
