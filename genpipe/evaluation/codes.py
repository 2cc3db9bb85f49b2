"""How well an encoder inverts a decoder, and how well the pair reconstructs."""

import torch
from torch import Tensor

from genpipe.data.loader import derived_seed
from genpipe.recipe import Decodes, Encodes
from genpipe.sampling.latent import reconstruct

CHUNK = 100


def judge_codes(encoder: Encodes, decoder: Decodes, x: Tensor, seed: int) -> dict[str, float]:
    """ρ, and the reconstruction of images in [0, 1] beside two that know nothing of the image."""
    return {
        "latent_correlation": latent_correlation(encoder, decoder, 1000, seed),
        "reconstruction_mse": mean_squared_error(x, reconstruct(encoder, decoder, x)),
        "reconstruction_mse_mean_image": mean_squared_error(x, x.mean(0, keepdim=True)),
        "reconstruction_mse_other_image": mean_squared_error(x, x.roll(1, 0)),
    }


def latent_correlation(encoder: Encodes, decoder: Decodes, n: int, seed: int) -> float:
    """Mean Pearson correlation ρ between z ~ N(0, I) and encode(decode(z)) (O-GAN, archives/6409)."""
    total = 0.0
    with torch.no_grad():
        for number in range(n // CHUNK):
            generator = torch.Generator().manual_seed(derived_seed(seed, "codes", number))
            z = torch.randn(CHUNK, decoder.latent_dim, generator=generator)
            code = encoder.encode(decoder.decode(z))
            total += float(
                torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(z, code, strict=True)])
                .double()
                .sum()
            )
    return total / (n // CHUNK * CHUNK)


def mean_squared_error(a: Tensor, b: Tensor) -> float:
    """Mean squared difference of pixels in [0, 1]."""
    return float((a - b).double().square().mean())
