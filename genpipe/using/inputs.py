"""A person's own inputs as a model sees them."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from genpipe.capabilities import Example
from genpipe.data.texts import padded
from genpipe.errors import BadInput
from genpipe.files import existing
from genpipe.nn.pixels import scaled
from genpipe.sources.pixels import Read, bits_used, read_deep, read_picture
from genpipe.using.model import Using


def read(using: Using, inputs: Sequence[str | Path] | Tensor) -> Example:
    """A person's inputs as a model sees them: images as a tensor, files of pictures, or texts."""
    if isinstance(inputs, str | Path) or not len(inputs):
        raise BadInput(
            f"inputs: give a list of files or texts, or a tensor, with one or more in it, not {inputs!r}"
        )
    if not isinstance(inputs, Tensor):
        for each in inputs:
            if not isinstance(each, str | Path):
                raise BadInput(
                    f"inputs: a {type(each).__name__} is neither the name of a file nor a text; give images as a tensor "
                    "[n, channels, height, width]"
                )
    if using.kind == "images":
        shape = using.facts["image_shape"]
        if isinstance(inputs, Tensor):
            return {"images": checked_images(using, inputs)}
        return {"images": scaled(torch.stack([read_image(Path(name), shape) for name in inputs]))}
    if using.kind == "points":
        raise BadInput(f"{using.name} takes points; from Python: genpipe.load({str(using.directory)!r})")
    if isinstance(inputs, Tensor):
        raise BadInput(f"{using.name} takes texts, not a tensor")
    ids, lengths = ids_of(using, [str(text) for text in inputs])
    return {"ids": ids, "lengths": lengths}


def checked_images(using: Using, images: Tensor) -> Tensor:
    """Images, bytes or values in [0, 1], as values; BadInput where they do not have the size of the model's, since a tensor is not resized."""
    shape = tuple(using.facts["image_shape"])
    if tuple(images.shape[1:]) != shape:
        raise BadInput(
            f"images of {list(images.shape)}: {using.name} takes [n, {', '.join(map(str, shape))}]; resize them, or name files "
            "of pictures, which are resized"
        )
    if images.dtype == torch.uint8:
        return scaled(images)
    values = images.float()
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise BadInput("images as numbers must lie in [0, 1]; give bytes as uint8, or divide by 255")
    return values


def ids_of(using: Using, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids, int64 [n, time], padded on the right, and their lengths, [n]."""
    codec = using.text()
    return padded([torch.tensor(codec.encode(text)).numpy() for text in texts], codec.pad)


def read_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """A file as an image of the model's size, uint8 [channels, height, width]: the middle square, upright, on white.

    A line on standard error says what was left out or resized. Raises BadInput for a picture in colours where the model takes grey ones; grey ones have three equal colours.
    """
    channels, height, width = shape
    existing(path, "name a file of a picture")
    if path.is_dir():
        raise BadInput(f"{path}: a directory; name the files of pictures in it")
    if height != width:
        raise BadInput(
            f"{path}: pictures are read as squares, and this model takes {height} × {width} pixels"
        )
    with warnings.catch_warnings():
        # a large picture of one's own; of twice the size Pillow raises an error
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        found: Read = read_picture(path, height, as_grey=False)
        pixels = read_deep(path, height, bits_used(found.largest)) if found.pixels is None else found.pixels
    if len(pixels) > channels:
        raise BadInput(f"{path}: in colours, and this model takes grey pictures; convert it to grey first")
    if found.frames > 1:
        print(f"{path}: {found.frames} pictures in one file; the first is taken", file=sys.stderr)
    if found.size != (width, height):
        part = "" if found.size[0] == found.size[1] else "its middle square "
        print(
            f"{path}: {found.size[0]} × {found.size[1]} pixels; {part}resized to {width} × {height}",
            file=sys.stderr,
        )
    return torch.from_numpy(pixels.copy()).expand(channels, height, width)
