"""Captions that a model writes, beside the images and the right ones."""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from genpipe.sampling.draw import first, rows_of
from genpipe.sampling.showing import Row, Showing
from genpipe.sampling.tables import write_table

SHOWN, COLUMNS = 24, 3
SIDE, WIDTH, MARGIN = 64, 260, 8  # pixels
INK = {"written": "#000000", "real": "#707070"}


def captions(showing: Showing) -> Iterable[Row]:
    """The texts of texts.npy beside the right ones, and a picture of the images with both where the data has its images."""
    ids = torch.from_numpy(np.load(showing.directory / "texts.npy"))
    number = min(len(ids), sum(map(rows_of, showing.data.split("test"))))
    x = first(showing.data, number)
    # chunks of several lengths were joined with zeros, which are ids of words
    is_behind = torch.arange(x["ids"].shape[1]) >= x["lengths"].unsqueeze(1)
    texts = (ids[:number], x["ids"].masked_fill(is_behind, showing.data.facts["pad"]))
    rows = list(zip(*map(showing.spelled, texts), strict=True))
    write_table(showing.directory / "written.tsv", ("written", "real"), rows)
    caption = "What the model writes for a test image, and its caption in the data: the first test images, whose order is that of a hash, so none is chosen. □ is a word without an id."
    path = showing.data.directory / "test_images.npy"
    if path.exists():
        draw_captions(np.load(path)[:SHOWN], rows[:SHOWN]).save(showing.directory / "grid.png", format="PNG")
        yield Row(
            "grid.png",
            "picture",
            "Captions",
            f"Black: what the model writes. Grey: the right caption. {caption}",
        )
    yield Row("written.tsv", "table", "Captions", caption)


def draw_captions(images: np.ndarray, texts: list[tuple[str, str]]) -> Image.Image:
    """A picture of images, uint8 [n, channels, height, width], each with two texts to its right."""
    lines = -(-len(images) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * (SIDE + WIDTH + 2 * MARGIN), lines * (SIDE + 2 * MARGIN)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for place, (image, both) in enumerate(zip(images, texts, strict=True)):
        left, top = (
            place % COLUMNS * (SIDE + WIDTH + 2 * MARGIN) + MARGIN,
            place // COLUMNS * (SIDE + 2 * MARGIN) + MARGIN,
        )
        pixels = Image.fromarray(np.moveaxis(np.broadcast_to(image, (3, *image.shape[1:])), 0, -1).copy())
        canvas.paste(pixels.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
        for line, (text, ink) in enumerate(zip(both, INK.values(), strict=True)):
            pen.text((left + SIDE + MARGIN, top + 8 + 26 * line), fitted(text, font), ink, font)
    return canvas


def fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A text, cut where it would be wider than its place."""
    if font.getlength(text) <= WIDTH - 2 * MARGIN:
        return text
    while text and font.getlength(f"{text}…") > WIDTH - 2 * MARGIN:
        text = text[:-1]
    return f"{text}…"
