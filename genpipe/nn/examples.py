"""Images or points: what a network is trained on, and what it makes."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from genpipe.errors import BadInput
from genpipe.nn.pixels import scaled


class Examples(NamedTuple):
    """The kind of examples, `images` or `points`, and the shape of one. Networks have the values of images in [−1, 1]."""

    key: str
    shape: tuple[int, ...]

    def of_batch(self, batch: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """[batch, *shape] of bytes, or of points, which stay as they are."""
        found = batch[self.key]
        return 2 * scaled(found, dtype) - 1 if self.key == "images" else found.to(dtype)

    def of_values(self, x: Mapping[str, Tensor]) -> Tensor:
        """[n, *shape] of images in [0, 1], or of points."""
        return 2 * x[self.key] - 1 if self.key == "images" else x[self.key]

    def as_values(self, made: Tensor) -> dict[str, Tensor]:
        """Images in [0, 1], or points, of what a network made, [n, *shape]."""
        return {self.key: (made + 1) / 2 if self.key == "images" else made}


def examples_of(image_shape: tuple[int, int, int] | None, dim: int | None) -> Examples:
    """The examples that the facts of some data tell of; BadInput where it has neither images nor points."""
    if image_shape is not None:
        return Examples("images", tuple(image_shape))
    if dim is not None:
        return Examples("points", (dim,))
    raise BadInput("the data must be images or points; name other data (recipes.*.data)")
