"""Panels of images: reconstructions, interpolations, a row a class, the nearest training images."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from genpipe.capabilities import Decodes, Embeds, Encodes, Masks, Samples
from genpipe.data.loader import Data, derived_seed
from genpipe.nn.pixels import SCALED, Pixels, scaled, scaled_to_bytes
from genpipe.sampling.draw import (
    CHUNK,
    as_values,
    coder_of,
    conditions,
    draw,
    first,
    in_chunks,
    in_fixed_chunks,
    interpolate,
    reconstruct,
    rows_of,
    whole,
)
from genpipe.sampling.pictures import grid, write_png
from genpipe.sampling.showing import Row, Showing
from genpipe.sampling.temperatures import temperatures_of

GRID = 64  # images of a grid
OF_ROW = 12  # samples of a temperature
COLUMNS = 12  # of reconstructions, walks and neighbours
WALKS = 6
CLASSES = 20  # rows of classes, at most
OF_CLASS = 10  # images of a class
NEIGHBOURS = 24  # samples with their nearest training image


def reconstructions(showing: Showing) -> Iterable[Row]:
    """Test images in the odd rows, and decode(encode(·)) of them below."""
    x = first(showing.data, 2 * COLUMNS)
    rebuilt = scaled_to_bytes(reconstruct(showing.recipe, showing.recipe, as_values(x))).numpy()
    pairs_below_each_other(showing, "reconstructions.png", x["images"].numpy(), rebuilt)
    caption = "Odd rows: test images. Even rows: what the decoder makes of their codes."
    yield Row("reconstructions.png", "picture", "Reconstructions", caption)


def restorations(showing: Showing) -> Iterable[Row]:
    """Test images, what is left of them, and what the model makes of that, in rows below each other."""
    x = as_values(first(showing.data, 2 * COLUMNS))
    images, keep = x["images"], _left(showing, x["images"])
    known = {name: x[name] for name in ("images", *showing.recipe.given)} | {"keep": keep}
    restore = lambda n, part: {"images": showing.recipe.restore(part, part["keep"])["images"]}
    made = in_fixed_chunks(restore, len(images), showing.seed, known)["images"]
    grey = torch.where(keep, images, torch.full_like(images, 0.5))
    rows = [part[i : i + COLUMNS] for i in (0, COLUMNS) for part in (images, grey, made)]
    write_png(showing.directory / "restorations.png", grid(scaled_to_bytes(torch.cat(rows)).numpy(), COLUMNS))
    above = (
        "Above, as much is hidden as in training; below" if isinstance(showing.recipe, Masks) else "Hidden is"
    )
    caption = (
        "Test images; what is left of them, what is hidden in grey; and the same with what the model puts there. "
        f"{above} the lower half."
    )
    yield Row("restorations.png", "picture", "Restorations", caption)


def _left(showing: Showing, images: Tensor) -> Tensor:
    """What is left of 2 · COLUMNS images, bool: the upper half, or of the first row of images what a training leaves."""
    keep = torch.ones_like(images, dtype=torch.bool)
    keep[:, :, images.shape[2] // 2 :] = False
    if isinstance(showing.recipe, Masks):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(showing.seed, "hidden"))
            keep[:COLUMNS] = showing.recipe.draw_keep(COLUMNS)
    return keep


def pairs_below_each_other(showing: Showing, file: str, upper: np.ndarray, lower: np.ndarray) -> None:
    """A picture of pairs of images, COLUMNS a row, one of a pair below the other."""
    rows = [part[i : i + COLUMNS] for i in range(0, len(upper), COLUMNS) for part in (upper, lower)]
    write_png(showing.directory / file, grid(np.concatenate(rows), COLUMNS))


def walks_between_images(showing: Showing) -> Iterable[Row]:
    """Walks from test image to test image, a walk a row."""
    coder = coder_of(showing.recipe)
    assert coder is not None
    x = as_values(first(showing.data, 2 * WALKS))
    a, b = ({name: value[half] for name, value in x.items()} for half in (slice(WALKS), slice(WALKS, None)))
    start, end = in_chunks(coder.encode, a), in_chunks(coder.encode, b)
    steps = interpolate(coder.decode, start, end, a, COLUMNS)
    write_walks(showing, "interpolation.png", steps)
    caption = "Each row goes from the code of a test image to that of another one at equal angles."
    yield Row("interpolation.png", "picture", "Interpolation", caption + of_the_first(showing))


def walks_of_a_flow(showing: Showing) -> Iterable[Row]:
    """The same between latents, for a model without other codes."""
    if not isinstance(showing.recipe, Encodes):
        yield from walks_between_images(showing)


def walks_between_samples(showing: Showing) -> Iterable[Row]:
    """Walks from sample to sample, a walk a row."""
    recipe: Decodes = showing.recipe
    given = conditions(showing.recipe, showing.data, CHUNK)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(showing.seed, "walks"))
        codes = recipe.draw_codes(CHUNK, given)
    kept = {name: value[:WALKS] for name, value in given.items()}
    steps = interpolate(recipe.decode, codes[:WALKS], codes[WALKS : 2 * WALKS], kept, COLUMNS)
    write_walks(showing, "walks.png", steps)
    caption = "Each row goes from the code of a sample to that of another one at equal angles."
    yield Row("walks.png", "picture", "Interpolation of samples", caption + of_the_first(showing))


def write_walks(showing: Showing, file: str, steps: Tensor) -> None:
    """A picture of walks, [n, num_steps, channels, height, width], a walk a row."""
    stored = pixels_of(showing.recipe).to_bytes(steps.flatten(0, 1)).numpy()
    write_png(showing.directory / file, grid(stored, steps.shape[1]))


def of_the_first(showing: Showing) -> str:
    """What a caption says of the conditions of a walk."""
    return " The class is that of the first one." if "labels" in getattr(showing.recipe, "given", ()) else ""


def samples_by_class(showing: Showing) -> Iterable[Row]:
    """A class a row, where the class is the one condition of the model."""
    recipe: Samples = showing.recipe
    number = showing.data.facts.get("num_classes", 0)
    if tuple(recipe.given) != ("labels",) or not number:
        return
    shown = min(number, CLASSES)
    labels = torch.arange(shown).repeat_interleave(OF_CLASS)
    made = draw(recipe, len(labels), showing.seed, {"labels": labels}, showing.how)
    stored = recipe.pixels.to_bytes(made["images"]).numpy()
    write_png(showing.directory / "by_class.png", grid(stored, OF_CLASS))
    names = showing.data.facts.get("classes", range(number))
    which = f"{names[0]} to {names[shown - 1]}" + (f", of {number:,} classes" if shown < number else "")
    yield Row("by_class.png", "picture", "Samples by class", f"A class a row, from top to bottom {which}.")


def nearest_training_images(showing: Showing) -> Iterable[Row]:
    """Samples in the odd rows, and the nearest training image of each below."""
    stored = showing.recipe.pixels.to_bytes(showing.drawn["images"][:NEIGHBOURS])
    test = first(showing.data, NEIGHBOURS)["images"]
    rows, distances = nearest(showing.data, torch.cat([stored, test]), showing.features)
    found = rows_at(showing.data, rows[: len(stored)])
    pairs_below_each_other(showing, "nearest.png", stored.numpy(), found)
    space = "in the features of the judge" if showing.features else "pixel by pixel"
    of_samples, of_test = (float(part.median()) for part in distances.split([len(stored), len(test)]))
    caption = (
        f"Odd rows: samples. Even rows: the training image that is nearest to each {space}. Median distance "
        f"{of_samples:.3g}; of test images from their nearest training image {of_test:.3g}. Copies of training images are far nearer."
    )
    yield Row("nearest.png", "picture", "Nearest training images", caption)


def nearest(data: Data, images: Tensor, features: Embeds | None) -> tuple[Tensor, Tensor]:
    """The number of the nearest training image to each of `images`, uint8, the first of equals, and its distance, [n]."""
    describe = features.embed if features else lambda x: x["images"].flatten(1)
    described = in_chunks(describe, {"images": scaled(images)}).double()
    best = torch.full((len(images),), torch.inf, dtype=torch.float64)
    rows, start = torch.zeros(len(images), dtype=torch.int64), 0
    for x in data.split("train"):
        others = in_chunks(describe, {"images": scaled(x["images"])}).double()
        distance, place = torch.cdist(described, others, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        is_nearer = distance < best
        best, rows = torch.where(is_nearer, distance, best), torch.where(is_nearer, start + place, rows)
        start += rows_of(x)
    return rows, best


def rows_at(data: Data, rows: Tensor) -> np.ndarray:
    """These training images, uint8 [n, channels, height, width]."""
    found: dict[int, Tensor] = {}
    start = 0
    for x in data.split("train"):
        found |= {row: x["images"][row - start] for row in rows.tolist() if start <= row < start + rows_of(x)}
        start += rows_of(x)
    return torch.stack([found[row] for row in rows.tolist()]).numpy()


def mistakes(showing: Showing) -> Iterator[Row]:
    """Test images in the wrong class."""
    x = whole(showing.data, "test")
    wrong = in_chunks(showing.recipe.classify, as_values(x)).argmax(-1) != x["labels"]
    mistaken = x["images"][wrong][:GRID].numpy()
    write_png(showing.directory / "mistakes.png", grid(mistaken, columns=8))
    yield Row("mistakes.png", "picture", "Mistakes", "Test images that the model puts in the wrong class.")


def pixels_of(recipe: object) -> Pixels:
    """What the images of a model are made of."""
    return getattr(recipe, "pixels", SCALED)


def samples_by_temperature(showing: Showing) -> Iterable[Row]:
    """A temperature a row, from the same noise and under the same conditions; nothing of a model that takes no temperature."""
    options = temperatures_of(showing.recipe, showing.how)
    if not options:
        return
    recipe: Samples = showing.recipe
    given = conditions(recipe, showing.data, OF_ROW)
    rows = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for how in options.values():
            torch.manual_seed(derived_seed(showing.seed, "temperatures"))
            rows.append(recipe.sample(OF_ROW, given, **how)["images"])
    stored = recipe.pixels.to_bytes(torch.cat(rows)).numpy()
    write_png(showing.directory / "temperatures.png", grid(stored, OF_ROW))
    *others, last = (f"{temperature:g}" for temperature in options)
    caption = f"A temperature a row, from top to bottom {', '.join(others)} and {last}; a column from the same noise."
    yield Row("temperatures.png", "picture", "Samples by temperature", caption)
