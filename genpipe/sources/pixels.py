"""Picture files as bytes, grey or red, green and blue.

Pictures are turned as their EXIF entry says. Transparent ones are put on white, palettes become the colours that they stand
for, inks (CMYK) are converted without a colour profile, grey ones of more than 8 bits a pixel are scaled to 8.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps

from genpipe.errors import BadInput
from genpipe.sources.folders import FORMATS

DEPTHS = (8, 10, 12, 14, 16, 32)  # bits a pixel that cameras and scanners use


class Encoded(NamedTuple):
    """The bytes of a picture file, and what errors call it."""

    name: str
    content: bytes


Picture = Path | Encoded  # where a picture is, or what it is


class Read(NamedTuple):
    """A picture file: its pixels, and what is lost of it."""

    pixels: NDArray[np.uint8] | None  # [channels, size, size]; None where it has more than 8 bits a pixel
    largest: int  # value of such a deep picture, else 0
    size: tuple[int, int]  # width and height, upright
    frames: int
    cut: bool = False  # colours of 16 bits, of which Pillow reads the upper 8
    coloured: bool = False
    made_grey: bool = False
    inks: bool = False
    transparent: bool = False


def read_picture(file: Picture, size: int, as_grey: bool) -> Read:
    """An upright picture on white, grey or in colours, or the largest value of a deep one.

    Raises BadInput where it cannot be read.
    """
    with _opened(file) as image:
        frames = int(getattr(image, "n_frames", 1))
        if _is_deep(image):
            return Read(None, _largest(_name(file), image), ImageOps.exif_transpose(image).size, frames)
        cut = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        turned = ImageOps.exif_transpose(image)
        upright = _on_white(turned)
        coloured = _is_coloured(upright)
        return Read(
            _fitted(upright, size, "RGB" if coloured and not as_grey else "L"),
            0,
            upright.size,
            frames,
            cut=cut,
            coloured=coloured,
            made_grey=coloured and as_grey,
            inks=image.mode == "CMYK",
            transparent=turned.has_transparency_data and _is_transparent(turned),
        )


def read_deep(file: Picture, size: int, bits: int) -> NDArray[np.uint8]:
    """A grey picture of `bits` bits a pixel as bytes, [1, size, size]: 2**bits − 1 becomes 255."""
    with _opened(file) as image:
        upright = ImageOps.exif_transpose(image)
        # convert("L") would cut the values, not scale them
        values = np.rint(np.asarray(upright).astype(np.float64) * (255 / ((1 << bits) - 1)))
        return _fitted(Image.fromarray(values.astype(np.uint8)), size, "L")


def bits_used(largest: int) -> int:
    """The bits a pixel of deep pictures whose largest value is this."""
    return next(depth for depth in DEPTHS if largest < 1 << depth)


@contextlib.contextmanager
def _opened(file: Picture) -> Iterator[Image.Image]:
    try:
        opened = io.BytesIO(file.content) if isinstance(file, Encoded) else file
        with Image.open(opened, formats=FORMATS) as image:
            yield image
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise BadInput(
            f"{_name(file)}: more than {most:,} pixels; make the picture smaller, or remove it"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"{_name(file)}: not a picture that can be read: {error}; fix or remove it") from None


def _name(file: Picture) -> str:
    return file.name if isinstance(file, Encoded) else str(file)


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def _largest(name: str, image: Image.Image) -> int:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0:
        what = "floating-point" if image.mode == "F" else "negative"
        raise BadInput(f"{name}: {what} pixels have no known range; convert it to 8 or 16 bits a pixel")
    return int(values.max())


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


def _is_transparent(image: Image.Image) -> bool:
    return image.convert("RGBA").getchannel("A").getextrema()[0] != 255


def _fitted(image: Image.Image, size: int, mode: Literal["L", "RGB"]) -> NDArray[np.uint8]:
    """The middle square, [channels, size, size]."""
    square = np.asarray(ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.LANCZOS))
    return square[None] if mode == "L" else np.moveaxis(square, -1, 0)


def _is_coloured(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA"):
        return False
    red, green, blue = image.convert("RGB").split()
    return any(ImageChops.difference(red, other).getbbox() for other in (green, blue))
