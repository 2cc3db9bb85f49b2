"""Pictures of images, grey or in colour."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

GAP = 128  # grey between images: some are white at their border, others black


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """One picture, uint8 [height, width, channels], of images, uint8 [n, channels, height, width]."""
    n, channels, height, width = images.shape
    rows = math.ceil(n / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    # places without an image stay white
    canvas = np.full(shape, 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[top - gap : top + height + gap, left - gap : left + width + gap] = GAP
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas


def write_png(path: Path, picture: np.ndarray) -> None:
    """A picture, uint8 [height, width, channels], of 1 or 3 channels."""
    as_image(picture).save(path, format="PNG")


def write_animation(path: Path, pictures: Sequence[np.ndarray], milliseconds: int) -> None:
    """An animated PNG of pictures, uint8 [height, width, channels], that begins again after the last, which stays longest.

    Of 256 levels of a colour it has 16, which halves the file.
    """
    frames = [as_image(np.rint(picture / 17).astype(np.uint8) * 17) for picture in pictures]
    stay = [milliseconds] * (len(frames) - 1) + [8 * milliseconds]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:], duration=stay, loop=0)


def as_image(picture: np.ndarray) -> Image.Image:
    """A picture, uint8 [height, width, channels], of 1 or 3 channels."""
    return Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
