"""Pictures of images, grey or in colour."""

import math
from pathlib import Path

import numpy as np
from PIL import Image


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """One picture, uint8 [height, width, channels], of images, uint8 [n, channels, height, width]."""
    n, channels, height, width = images.shape
    rows = math.ceil(n / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas


def write_png(path: Path, picture: np.ndarray) -> None:
    """A picture, uint8 [height, width, channels], of 1 or 3 channels."""
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(path, format="PNG")
