"""Characters of GB 2312 drawn in the fonts of a folder, white on black; the font is the class.

FreeType draws with whole numbers, so that a version of it gives the same bytes on every processor; another version may not,
and is refused. All characters of a font lie on one line: its whole font is centred, not each of them.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from genpipe.errors import BadInput, BadState
from genpipe.files import is_hidden
from genpipe.params.corpora import Glyphs
from genpipe.progress import shown
from genpipe.sources.examples import Examples, write_examples
from genpipe.sources.prepared import Prepared

SUFFIXES = (".otf", ".ttc", ".ttf")
ROWS = {"gb2312_level1": range(16, 56), "gb2312": range(16, 88)}  # of GB 2312: its Chinese characters
NO_CHARACTER = "\uffff"  # which no font has, so it is drawn as what stands for missing ones
Box = tuple[float, float, float, float]  # left, top, right, bottom


class Drawn(NamedTuple):
    """The pictures of one font and their characters."""

    images: list[NDArray[np.uint8]]
    characters: list[str]


def prepare_glyphs(source: Path, directory: Path, dataset: Glyphs) -> Prepared:
    """Write images [n, 1, size, size] of each character in each font, and the font as label where there are several.

    A character is on one side of the split in all fonts.
    """
    _require_rasteriser(dataset.freetype)
    left_out: Counter[str] = Counter()
    fonts = _fonts(source, left_out)
    text = characters(dataset.characters)
    drawn = {path.stem: _draw(path, text, dataset.image_size, left_out) for path in fonts}
    images = np.stack([image for font in drawn.values() for image in font.images])[:, None]
    labels = [name for name, font in drawn.items() for _ in font.images]
    subjects = [character for font in drawn.values() for character in font.characters]
    found = Examples(images, labels if len(drawn) > 1 else None, None, subjects)
    notes = [f"drawn by FreeType {dataset.freetype}", *([] if len(drawn) > 1 else [f"one font, {labels[0]}"])]
    return write_examples(source, directory, found, dataset.test_share, left_out, notes)


def characters(which: str) -> list[str]:
    """The Chinese characters of GB 2312 in its order: 3,755 of level 1, by sound, then 3,008 of level 2, by radical."""
    codes = ((row, cell) for row in ROWS[which] for cell in range(1, 95))
    found = (bytes([0xA0 + row, 0xA0 + cell]).decode("gb2312", "ignore") for row, cell in codes)
    return [character for character in found if character]


def _require_rasteriser(wanted: str) -> None:
    found = features.version("freetype2")
    if found != wanted:
        raise BadState(
            f"glyphs: Pillow has FreeType {found}, and the block says freetype: {wanted!r}, since another version may draw "
            "other pixels; install requirements.lock, or change the block"
        )


def _fonts(source: Path, left_out: Counter[str]) -> list[Path]:
    """The font files of a folder; what else is there is counted."""
    found: list[Path] = []
    for path in sorted(source.iterdir()) if source.is_dir() else [source]:
        if path.suffix.lower() in SUFFIXES and path.is_file() and not is_hidden(Path(path.name)):
            found.append(path)
        else:
            left_out["files that are no fonts"] += 1
    if not found:
        raise BadInput(f"{source}: no fonts found; put {', '.join(SUFFIXES)} files there")
    names = Counter(path.stem for path in found)
    if twice := [name for name, number in names.items() if number > 1]:
        raise BadInput(f"{source}: several fonts have the name {twice[0]}; rename one, for it is their class")
    return found


def _draw(path: Path, text: Sequence[str], size: int, left_out: Counter[str]) -> Drawn:
    """Each character that the font has."""
    font = _open(path, size * 7 // 8)
    start = _centred([font.getbbox(character, anchor="ls") for character in text], size)
    missing = _picture(font, NO_CHARACTER, start, size)
    drawn = Drawn([], [])
    for character in shown(text, f"draw {path.stem}", "characters"):
        image = _picture(font, character, start, size)
        if np.array_equal(image, missing):
            left_out[f"characters that {path.name} does not have"] += 1
        else:
            drawn.images.append(image)
            drawn.characters.append(character)
    if not drawn.images:
        raise BadInput(f"{path}: the font has none of these characters; take it away")
    return drawn


def _picture(
    font: ImageFont.FreeTypeFont, character: str, start: tuple[int, int], size: int
) -> NDArray[np.uint8]:
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).text(start, character, fill=255, font=font, anchor="ls")
    return np.asarray(image)


def _open(path: Path, size: int) -> ImageFont.FreeTypeFont:
    try:
        # BASIC: without the shaping of Raqm, of which a Pillow may have any version or none
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: not a font that can be read: {error}; fix or remove it") from None


def _centred(boxes: Sequence[Box], size: int) -> tuple[int, int]:
    """Where the pen starts, so that what all boxes cover together is in the middle."""
    sides = np.array(boxes)
    (left, top), (right, bottom) = sides[:, :2].min(0).tolist(), sides[:, 2:].max(0).tolist()
    return round((size - left - right) / 2), round((size - top - bottom) / 2)
