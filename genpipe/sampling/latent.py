"""Samples, reconstructions and interpolations, each a function of (seed, number of the sample) only."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from genpipe.data.loader import derived_seed
from genpipe.recipe import Decodes, Encodes, Samples

CHUNK = 100  # rows computed at once; fixed, since the size of a matrix product may change its last bits


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """`function` over all rows, a fixed number at a time."""
    with torch.no_grad():
        return torch.cat([function(chunk) for chunk in rows.split(CHUNK)])


def draw(model: Samples, n: int, seed: int) -> Tensor:
    """`n` images in [0, 1], [n, height, width]; sample j is the same whatever n is."""
    chunks: list[Tensor] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for chunk in range(math.ceil(n / CHUNK)):
            torch.manual_seed(derived_seed(seed, "sample", chunk))
            chunks.append(model.sample(CHUNK))
    return torch.cat(chunks)[:n]


def reconstruct(encoder: Encodes, decoder: Decodes, x: Tensor) -> Tensor:
    """decode(encode(x)), [batch, height, width]."""
    return in_chunks(lambda chunk: decoder.decode(encoder.encode(chunk)), x)


def interpolate(encoder: Encodes, decoder: Decodes, a: Tensor, b: Tensor, num_steps: int) -> Tensor:
    """Rows from a to b, [batch, num_steps, height, width], along straight lines between their codes, kept at unit deviation."""
    start, end = in_chunks(encoder.encode, a), in_chunks(encoder.encode, b)
    weights = torch.linspace(0, 1, num_steps, dtype=start.dtype)
    rows = [torch.lerp(start, end, weight) for weight in weights]
    codes = torch.stack([row / row.std(1, correction=0, keepdim=True) for row in rows], dim=1)
    return in_chunks(decoder.decode, codes.flatten(0, 1)).unflatten(0, (len(a), num_steps))


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """One picture, uint8 [rows · (height + gap), columns · (width + gap)], of images, uint8 [n, height, width]."""
    n, height, width = images.shape
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas
