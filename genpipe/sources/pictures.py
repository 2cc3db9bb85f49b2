"""Pictures of any size and mode as one array of bytes, and what is lost of them, in words."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from genpipe.progress import shown
from genpipe.sources.pixels import Picture, Read, bits_used, read_deep, read_picture


def pixels_of(
    files: Sequence[Picture], size: int, colour: Literal["auto", "grey", "rgb"]
) -> tuple[NDArray[np.uint8], list[str]]:
    """All pictures, uint8 [n, channels, size, size], and what is lost of them, a line each."""
    read = [read_picture(file, size, colour == "grey") for file in shown(files, "prepare", "images")]
    # Over the data set, not a picture: the brightness of pictures stays comparable.
    bits = bits_used(max(picture.largest for picture in read))
    images = [
        read_deep(file, size, bits) if picture.pixels is None else picture.pixels
        for file, picture in zip(files, read, strict=True)
    ]
    coloured = colour == "rgb" or any(len(image) == 3 for image in images)
    channels = 3 if coloured else 1
    losses = [*_losses(read, bits, size), *_mixture(read, coloured and colour == "auto")]
    return np.stack([np.broadcast_to(image, (channels, size, size)) for image in images]), losses


def _losses(read: list[Read], bits: int, size: int) -> list[str]:
    lines = {
        "made grey: they have colours": sum(picture.made_grey for picture in read),
        f"of more than 8 bits a pixel, of which {bits} are used: scaled to 8": sum(
            picture.pixels is None for picture in read
        ),
        "in colour with 16 bits a channel: only the upper 8 are read": sum(picture.cut for picture in read),
        "in inks (CMYK): converted to red, green and blue without a colour profile": sum(
            picture.inks for picture in read
        ),
        "transparent: put on white": sum(picture.transparent for picture in read),
        "of several frames: only the first is read": sum(picture.frames > 1 for picture in read),
        f"not {size}×{size} pixels: resized to cover that, and cropped at the centre": sum(
            picture.size != (size, size) for picture in read
        ),
    }
    return [f"{number:,} of {len(read):,} images {what}" for what, number in lines.items() if number]


def _mixture(read: list[Read], coloured: bool) -> list[str]:
    """What differs among the pictures: their sizes, and whether they have colours."""
    sizes = sorted({picture.size for picture in read}, key=lambda size: (size[0] * size[1], size))
    grey = sum(not picture.coloured for picture in read)
    lines: list[str] = []
    if len(sizes) > 1:
        (least, most) = (f"{width}×{height}" for width, height in (sizes[0], sizes[-1]))
        lines.append(f"sizes are mixed: {len(sizes):,} of them, from {least} to {most} pixels")
    if coloured and grey:
        lines.append(f"{grey:,} of {len(read):,} images are grey and get three equal channels")
    return lines
