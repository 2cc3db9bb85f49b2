"""Bytes of images and what models compute with: two conventions, each with its way back.

Scaled: x = i/255, and back i = round(255 x), for networks that put out the value of a pixel.
Dequantised: x = (i + u)/256 with u uniform in [0, 1), and back i = floor(256 x), for densities (Theis, van den Oord,
Bethge, 2015, arXiv:1511.01844). Rounding such an x would turn half of the black pixels into 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Sums of a byte and 16 bits of noise are exact in float32. With all 24 bits of torch.rand, some of them reach i + 1.
NOISE_LEVELS = 1 << 16


class Pixels(NamedTuple):
    """A convention: bytes -> from_bytes -> to_bytes are the same bytes."""

    from_bytes: Callable[[Tensor, torch.dtype], Tensor]
    to_bytes: Callable[[Tensor], Tensor]


def scaled(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values in [0, 1], i/255, of bytes i of any shape, or of mixtures of such bytes."""
    return images.to(dtype) / 255


def scaled_to_bytes(x: Tensor) -> Tensor:
    """The nearest bytes, uint8, of values i/255; values outside [0, 1] are cut off."""
    return (x.double() * 255).round().clamp(0, 255).to(torch.uint8)


def dequantised(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values in [0, 1), (i + u)/256, of bytes i of any shape; u comes from torch's global generator."""
    noise = torch.rand(images.shape, device=images.device).mul(NOISE_LEVELS).floor() / NOISE_LEVELS
    return ((images.to(torch.float32) + noise) / 256).to(dtype)


def dequantised_to_bytes(x: Tensor) -> Tensor:
    """The bytes, uint8, whose intervals [i/256, (i + 1)/256) hold the values; values outside [0, 1) are cut off."""
    return (x.double() * 256).floor().clamp(0, 255).to(torch.uint8)


SCALED = Pixels(scaled, scaled_to_bytes)
DEQUANTISED = Pixels(dequantised, dequantised_to_bytes)
