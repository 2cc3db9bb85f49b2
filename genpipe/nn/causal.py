"""Maps of pictures in which a pixel sees those before it in raster order only, and the same pixel by pixel from cached maps.

Pictures and maps are [n, height, width, channels], padded with zeros. In float64 a layer computes a whole picture, a row of it
or a pixel by the same product of matrices: the numbers about each pixel, side by side, times the weights. Its rows are the
same bits whatever their number is, as long as that is a multiple of ROWS; those of a convolution, which is faster and computes
trainings in float32, or of another number of rows, are not.
"""

import abc
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.errors import BadInput

# Kernels compute up to 16 rows at once, and the last ones of another number in another order.
ROWS = 16


class Causal(nn.Module):
    """A linear map of the pixels `above` rows up, `left` to the left and `right` to the right, and of the pixel itself.

    With `groups`, the groups of the channels that come in and go out, a pixel sees nothing to the right of it in its own row,
    and in itself only groups up to each one that goes out: mask B. `strict`: only groups before it, mask A.
    """

    mask: Tensor | None

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        above: int = 0,
        left: int = 0,
        right: int = 0,
        groups: tuple[Tensor, Tensor] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.above, self.left, self.right = above, left, right
        self.taps = taps = (above + 1) * (left + 1 + right)
        self.linear = nn.Linear(taps * in_dim, out_dim)
        mask = None
        if groups:
            mask = torch.ones(out_dim, taps, in_dim, dtype=torch.bool)
            own = above * (left + 1 + right) + left
            before, after = groups[0], groups[1].unsqueeze(1)
            mask[:, own] = before < after if strict else before <= after
            mask[:, own + 1 :] = False
            mask = None if mask.all() else mask.flatten(1)
        self.register_buffer("mask", mask, persistent=False)

    def padded(self, x: Tensor) -> Tensor:
        """A map with as many zeros about it as the layer looks beyond its edges."""
        return F.pad(x, (0, 0, self.left, self.right, self.above, 0))

    def forward(self, x: Tensor) -> Tensor:
        """A padded map, or a part of one, [n, above + rows, left + columns + right, in_dim] → [n, rows, columns, out_dim]."""
        # in place of the weights: a masked one has no effect, whatever an optimiser makes of it
        weight = self.linear.weight if self.mask is None else self.linear.weight * self.mask
        if self.taps == 1:
            return F.linear(x, weight, self.linear.bias)
        if weight.dtype == torch.float64:
            return F.linear(self._side_by_side(x), weight, self.linear.bias)
        kernel = weight.unflatten(1, (self.above + 1, -1, x.shape[3])).movedim(3, 1)
        return F.conv2d(x.movedim(3, 1), kernel, self.linear.bias).movedim(1, 3)

    def _side_by_side(self, x: Tensor) -> Tensor:
        """What is about each pixel, [n, rows, columns, taps · in_dim]."""
        rows, columns = x.shape[1] - self.above, x.shape[2] - self.left - self.right
        places = itertools.product(range(self.above + 1), range(self.left + 1 + self.right))
        return torch.cat([x[:, i : i + rows, j : j + columns] for i, j in places], -1)


class Map:
    """A map that is filled row by row or pixel by pixel, with the zeros about it."""

    def __init__(self, n: int, height: int, width: int, dim: int, border: int, like: Tensor) -> None:
        self.border, self.width = border, width
        self.values = like.new_zeros(n, height + border, width + 2 * border, dim)

    def rows(self, layer: Causal, row: int) -> Tensor:
        """What a layer looks at for a whole row."""
        rows = slice(row + self.border - layer.above, row + self.border + 1)
        return self.values[:, rows, self.border - layer.left : self.border + self.width + layer.right]

    def about(self, layer: Causal, row: int, column: int) -> Tensor:
        """What a layer looks at for one pixel."""
        rows = slice(row + self.border - layer.above, row + self.border + 1)
        place = column + self.border
        return self.values[:, rows, place - layer.left : place + layer.right + 1]

    def at(self, row: int, column: int) -> Tensor:
        """One pixel, [n, 1, 1, dim]."""
        row, column = row + self.border, column + self.border
        return self.values[:, row : row + 1, column : column + 1]

    def set_row(self, row: int, values: Tensor) -> None:
        """Fill a row, [n, 1, width, dim]."""
        self.values[:, row + self.border, self.border : self.border + self.width] = values[:, 0]

    def set_pixel(self, row: int, column: int, values: Tensor) -> None:
        """Fill a pixel, [n, dim]."""
        self.values[:, row + self.border, column + self.border] = values


class CausalNetwork(nn.Module, abc.ABC):
    """Parameters of the distribution of each pixel, given those before it, of whole pictures or pixel by pixel."""

    @abc.abstractmethod
    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Pictures in [−1, 1], [n, height, width, channels] → parameters, [n, height, width, channels · size]."""

    @abc.abstractmethod
    def begin(self, n: int, height: int, width: int, labels: Tensor | None) -> Any:
        """The state of `n` pictures of which no pixel is known; its `picture` is a Map, to be filled in raster order."""

    @abc.abstractmethod
    def begin_row(self, state: Any, row: int) -> None:
        """Compute what a row needs of those above it, which are known."""

    @abc.abstractmethod
    def pixel(self, state: Any, row: int, column: int) -> Tensor:
        """Parameters of a pixel, [n, channels · size]; those of a channel look at the channels before it."""


class Head(nn.Module):
    """From the last map to the parameters of a distribution for each channel of a pixel."""

    def __init__(self, width: int, channels: int, size: int) -> None:
        super().__init__()
        hidden, values = groups_of(width, channels), torch.arange(channels).repeat_interleave(size)
        self.first = Causal(width, width, groups=(hidden, hidden))
        self.last = Causal(width, channels * size, groups=(hidden, values))

    def forward(self, x: Tensor) -> Tensor:
        """[n, rows, columns, width] → [n, rows, columns, channels · size]."""
        return self.last(F.relu(self.first(F.relu(x))))


def groups_of(width: int, channels: int) -> Tensor:
    """The group of each of `width` numbers, int64 [width]: as many for each channel; BadInput where that does not come out even."""
    if width % channels:
        raise BadInput(
            f"train.network.width: must be a multiple of {channels}, the channels of the images, not {width}; "
            f"take {width - width % channels + channels}"
        )
    return torch.arange(channels).repeat_interleave(width // channels)


def gate(x: Tensor) -> Tensor:
    """tanh(a) σ(b) of x = [a, b], [..., 2 · dim] → [..., dim].

    The sigmoid is made of tanh, whose bits do not depend on where in a tensor a number is; those of torch.sigmoid do.
    """
    a, b = x.chunk(2, -1)
    return a.tanh() * sigmoid(b)


def sigmoid(x: Tensor) -> Tensor:
    """σ(x) = (1 + tanh(x/2))/2."""
    return (x / 2).tanh() / 2 + 0.5
