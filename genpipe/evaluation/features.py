"""Images of a model, real ones, and images that need no model, in the features of the yardstick; computed once, shared by judges."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genpipe.capabilities import Embeds, Example
from genpipe.data.loader import Data, read_array
from genpipe.errors import BadState
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.nn.pixels import scaled
from genpipe.sampling.draw import first, in_chunks, joined, rows_of, whole

# what says how many images are compared: of a model, and of a checkpoint
HOW_MANY = "sample.num and half of the images for testing (of a checkpoint: train.best.num and half of those held out)"
NUM_FITTED = 2000  # training images that the Gaussian is fitted to, at most


@dataclass(frozen=True, eq=False)
class RealSide:
    """Features, float [n, feature], of as many images each: what the samples of any model are compared with, and by."""

    yardstick: Embeds
    real: np.ndarray  # the first half of the split
    other: np.ndarray  # the second half: real images that were drawn by nature
    gaussian: np.ndarray  # drawn from a Gaussian with the mean and the covariance of training images
    noise: np.ndarray  # uniform bytes


@dataclass(frozen=True, eq=False)
class Compared:
    """The samples of a model beside a real side of the same size."""

    side: RealSide
    drawn: np.ndarray  # features
    labels: Tensor | None  # the classes that the samples were asked to have, int64 [n]

    @property
    def sets(self) -> dict[str, np.ndarray]:
        """What is compared with real images, by the suffix of its metrics; the samples have none."""
        return {"": self.drawn, "_real": self.side.other, "_gaussian": self.side.gaussian}


class Pixels(Embeds):
    """Images as they are. A distance of two is the root mean square difference of their values in [0, 1]."""

    def embed(self, x: Example) -> Tensor:
        """Values over the root of their number, float [n, channels · height · width]."""
        values = x["images"].flatten(1)
        return values / values.shape[1] ** 0.5


PIXELS = Pixels()


@functools.lru_cache(maxsize=1)
def compared(trial: Trial) -> Compared:
    """The samples of a trial and its real side in the features of the yardstick; NotMeasured where it has none."""
    return compared_in(trial.yardstick, trial)


def compared_in(yardstick: Callable[[], Embeds], trial: Trial, most: int | None = None) -> Compared:
    """The samples of a trial and its real side, as many as there are samples, at most `most` and half of the split.

    The rows of the split must be in no order, as `genpipe prepare` writes them: its first half is compared with its second.
    """
    drawn = drawn_images(trial)[:most]
    shape = trial.data.facts["image_shape"]
    if tuple(drawn.shape[1:]) != tuple(shape):
        raise BadState(
            f"samples.npy has images of {tuple(drawn.shape[1:])} pixels, and the data of {tuple(shape)}; sample again"
        )
    n = min(len(drawn), len(whole(trial.data, trial.split)["images"]) // 2)
    if n < 2:
        raise NotMeasured(
            f"samples are compared two by two, and {HOW_MANY} give {n}; raise it, or keep more images"
        )
    side = real_side(yardstick(), trial.data, trial.split, n)
    labels = first(trial.data, n, trial.split)["labels"] if "labels" in trial.recipe.given else None
    return Compared(side, embedded(side.yardstick, drawn[:n]), labels)


def drawn_images(trial: Trial) -> Tensor:
    """The samples of a trial, uint8 [n, channels, height, width]."""
    if trial.made is not None:
        return trial.made["images"]
    return torch.from_numpy(np.array(read_array(trial.samples / "samples.npy")))


@functools.lru_cache(maxsize=2)
def real_side(yardstick: Embeds, data: Data, split: str, n: int) -> RealSide:
    """`n` images of each half of a split, and `n` of each of the two that need no model."""
    images = whole(data, split)["images"]
    noise = torch.randint(
        0, 256, (n, *images.shape[1:]), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    gaussian = gaussian_images(beginning(data, NUM_FITTED, "train")["images"], n)
    features = [embedded(yardstick, x) for x in (images[:n], images[n : 2 * n], gaussian, noise)]
    return RealSide(yardstick, *features)


def beginning(data: Data, n: int, split: str) -> Example:
    """The first `n` rows of a split, or all where there are fewer."""
    parts: list[Example] = []
    for x in data.split(split):
        parts.append(x)
        if sum(map(rows_of, parts)) >= n:
            break
    return {name: value[:n] for name, value in joined(parts).items()}


def gaussian_images(images: Tensor, n: int, seed: int = 0) -> Tensor:
    """`n` images, uint8, from the Gaussian with the mean and covariance of others, uint8: all their principal components.

    With rows x_i and their mean m, m + Σ g_i (x_i − m) / √(rows − 1) has that covariance for independent normal g_i.
    """
    pixels = images.flatten(1).float()
    mean = pixels.mean(0)
    normal = torch.randn(n, len(pixels), generator=torch.Generator().manual_seed(seed))
    made = mean + normal @ (pixels - mean) / max(len(pixels) - 1, 1) ** 0.5
    return made.round().clamp(0, 255).to(torch.uint8).unflatten(1, images.shape[1:])


def embedded(yardstick: Embeds, images: Tensor) -> np.ndarray:
    """Features, float [n, feature], of bytes."""
    return in_chunks(yardstick.embed, {"images": scaled(images)}).numpy()
