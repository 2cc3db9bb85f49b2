"""What a trained model can show, by capability: pictures and tables."""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genpipe.data.images import Images
from genpipe.data.pairs import NEWLINE, UNKNOWN, Pairs
from genpipe.nn.pixels import scaled, scaled_to_bytes
from genpipe.recipe import Classifies, Decodes, Encodes, Recipe, Samples, Tags
from genpipe.sampling import decoding, latent

GRID = 64  # images of a grid
COLUMNS = 12  # of reconstructions and walks


def write_samples(recipe: Recipe, data: Images | Pairs, n: int, seed: int, directory: Path) -> None:
    """Write `n` samples as arrays and tables, and what a person would rather look at as PNG."""
    if isinstance(recipe, Samples):
        images = recipe.pixels.to_bytes(latent.draw(recipe, n, seed)).numpy()
        np.save(directory / "samples.npy", images)
        write_png(directory / "grid.png", latent.grid(images[:GRID], columns=8))
    if isinstance(recipe, Encodes) and isinstance(recipe, Decodes) and isinstance(data, Images):
        write_png(directory / "reconstructions.png", reconstructions(recipe, recipe, data))
        write_png(directory / "interpolation.png", walks(recipe, recipe, data))
    if isinstance(recipe, Classifies) and isinstance(data, Images):
        mistaken = data.test()["images"][mistakes(recipe, data)][:GRID]
        write_png(directory / "mistakes.png", latent.grid(mistaken.numpy(), columns=8))
    if isinstance(recipe, Tags) and isinstance(data, Pairs):
        write_table(
            directory / "couplets.tsv", ("upper", "generated", "real"), spread(answers(recipe, data), n)
        )


def reconstructions(encoder: Encodes, decoder: Decodes, data: Images) -> np.ndarray:
    """A picture of test images in the odd rows, and decode(encode(·)) of them below."""
    originals = first(data, 2 * COLUMNS)
    rebuilt = scaled_to_bytes(latent.reconstruct(encoder, decoder, scaled(originals))).numpy()
    rows = [part[i : i + COLUMNS] for i in (0, COLUMNS) for part in (originals.numpy(), rebuilt)]
    return latent.grid(np.concatenate(rows), COLUMNS)


def walks(encoder: Encodes, decoder: Decodes, data: Images) -> np.ndarray:
    """A picture of walks from test image to test image, a walk a row."""
    test = scaled(first(data, 12))
    steps = latent.interpolate(encoder, decoder, test[:6], test[6:], COLUMNS)
    return latent.grid(scaled_to_bytes(steps.flatten(0, 1)).numpy(), COLUMNS)


def first(data: Images, n: int) -> Tensor:
    """The first `n` test images, from the beginning again where there are fewer."""
    images = data.test()["images"]
    return images[torch.arange(n) % len(images)]


def mistakes(model: Classifies, data: Images) -> Tensor:
    """Which test images, bool [n], the model puts in the wrong class."""
    test = data.test()
    return latent.in_chunks(model.classify, scaled(test["images"])).argmax(-1) != test["labels"]


def answers(model: Tags, data: Pairs) -> list[tuple[str, str, str]]:
    """Upper, generated and real lower line of every test couplet."""
    forbidden = {UNKNOWN, data.vocabulary.index(NEWLINE)}
    rows: list[tuple[str, str, str]] = []
    for batch in data.test():
        made = latent.in_chunks(lambda upper: decoding.answer(model, upper, forbidden), batch["upper"])
        rows += zip(*(data.spelled(lines) for lines in (batch["upper"], made, batch["lower"])), strict=True)
    return rows


def spread(rows: list[tuple[str, str, str]], n: int) -> list[tuple[str, str, str]]:
    """`n` rows spread evenly over all, or all where there are fewer."""
    return [rows[i * len(rows) // n] for i in range(n)] if n < len(rows) else rows


def write_png(path: Path, picture: np.ndarray) -> None:
    """A grey picture, uint8 [height, width]."""
    Image.fromarray(picture).save(path, format="PNG")


def write_table(path: Path, columns: tuple[str, ...], rows: list[tuple[str, str, str]]) -> None:
    """Tab-separated text with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([columns, *rows])
