"""Steps of flows: bijections of images, [n, channels, height, width], with the log of the absolute Jacobian determinant.

Points are images of one pixel with a channel a coordinate. A step gives its output and the log-determinant, [n]; its inverse
gives the input. In training mode batch normalisation has no inverse: it uses the statistics of the batch.
"""

import abc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.errors import BadInput

Mixing = Literal["plain", "lu"]
LEAST_DEVIATION = 1e-6  # of a channel that is scaled to deviation 1


class Step(nn.Module, abc.ABC):
    """A bijection."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the log of the absolute determinant of the Jacobian, [n]."""

    @abc.abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """The input that `forward` maps to `y`."""


class Chain(Step):
    """Steps one after the other."""

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the last step, and the sum of the log-determinants."""
        log_det = x.new_zeros(len(x))
        for step in self.steps:
            x, change = step(x)
            log_det = log_det + change
        return x, log_det

    def inverse(self, y: Tensor) -> Tensor:
        """The steps backwards."""
        for step in reversed(self.steps):
            y = cast(Step, step).inverse(y)
        return y


def places(x: Tensor) -> int:
    """The pixels of an image."""
    return x.shape[2] * x.shape[3]


class ActNorm(Step):
    """y = (x + b) e^l for each channel; at first each channel of some data gets mean 0 and deviation 1.

    Kingma, Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, 2018, arXiv:1807.03039.
    """

    started: Tensor  # saved with the weights: what was loaded is never started again

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("started", torch.zeros((), dtype=torch.int64))
        self.is_starting = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log |det| = pixels · Σ l."""
        if self.is_starting:
            self._start(x)
        return (x + self.shift) * self.log_scale.exp(), (places(x) * self.log_scale.sum()).expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """x = y e^−l − b."""
        return y * (-self.log_scale).exp() - self.shift

    def _start(self, x: Tensor) -> None:
        rows = x.detach().double()
        mean = rows.mean((0, 2, 3))[:, None, None]
        deviation = rows.var((0, 2, 3), correction=0).sqrt()[:, None, None]
        self.shift.copy_(-mean)
        self.log_scale.copy_(-deviation.clamp(min=LEAST_DEVIATION).log())
        self.started.fill_(1)


@contextmanager
def starting(module: nn.Module) -> Iterator[None]:
    """Within it a pass of data, without gradients, starts each ActNorm that was not started, in the order of the pass."""
    waiting = [part for part in module.modules() if isinstance(part, ActNorm) and not part.started]
    try:
        for part in waiting:
            part.is_starting = True
        with torch.no_grad():
            yield
    finally:
        for part in waiting:
            part.is_starting = False


class BatchNorm(nn.BatchNorm2d, Step):
    """y = (x − m)/√(v + ε) for each channel, with m and v of the batch in training and running ones in evaluation.

    log |det| = −½ pixels · Σ ln(v + ε), with the same v (Dinh, Sohl-Dickstein, Bengio, 2016, arXiv:1605.08803).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The output and the log-determinant; in training the running statistics move on."""
        mean, var = self._of_batch(input) if self.training else self._running()
        y = (input - mean) * (var + self.eps).rsqrt()
        return y, (-0.5 * places(input) * (var + self.eps).log().sum()).expand(len(input))

    def inverse(self, y: Tensor) -> Tensor:
        """With the running statistics."""
        mean, var = self._running()
        return y * (var + self.eps).sqrt() + mean

    def _running(self) -> tuple[Tensor, Tensor]:
        assert self.running_mean is not None
        assert self.running_var is not None
        return self.running_mean[:, None, None], self.running_var[:, None, None]

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = len(x) * places(x)
        if size < 2:
            raise BadInput(
                "batch normalisation of one value has no variance; take more rows for each logical worker, or norm: actnorm"
            )
        mean = x.mean((0, 2, 3), keepdim=True)
        var = (x - mean).square().mean((0, 2, 3), keepdim=True)
        with torch.no_grad():
            for kept, now in zip(self._running(), (mean[0], var[0] * (size / (size - 1))), strict=True):
                kept.lerp_(now.to(kept.dtype), self.momentum or 0.0)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return mean[0], var[0]


class Mix(Step):
    """y = W x at each pixel, a 1×1 convolution; W starts as a random rotation (Kingma, Dhariwal, 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(rotation(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log |det| = pixels · ln |det W|."""
        weight = self.matrix()
        return at_each_pixel(weight, x), (places(x) * self.log_det()).expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """x = W⁻¹ y; the inverse is computed in double precision."""
        return at_each_pixel(torch.linalg.inv(self.matrix().double()).to(y.dtype), y)

    def matrix(self) -> Tensor:
        """W, [channels, channels]."""
        return self.weight

    def log_det(self) -> Tensor:
        """ln |det W|, in double precision as a product of many numbers."""
        return torch.linalg.slogdet(self.weight.double()).logabsdet.to(self.weight.dtype)


class MixLU(Mix):
    """The same with W = P (L + I) (U + diag(sign · e^l)): P and the signs are fixed, L and U triangles; ln |det W| = Σ l."""

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        Step.__init__(self)
        permutation, lower, upper = torch.linalg.lu(rotation(channels).double())
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation.float())
        self.register_buffer("sign", diagonal.sign().float())
        self.lower = nn.Parameter(lower.tril(-1).float())
        self.upper = nn.Parameter(upper.triu(1).float())
        self.log_diagonal = nn.Parameter(diagonal.abs().log().float())

    def matrix(self) -> Tensor:
        """W, [channels, channels]."""
        lower = self.lower.tril(-1) + torch.eye(
            len(self.sign), dtype=self.sign.dtype, device=self.sign.device
        )
        return (
            self.permutation @ lower @ (self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp()))
        )

    def log_det(self) -> Tensor:
        """ln |det W|."""
        return self.log_diagonal.sum()


def rotation(channels: int) -> Tensor:
    """A random orthogonal matrix, float32 [channels, channels], by torch's global generator."""
    return nn.init.orthogonal_(torch.empty(channels, channels))


def at_each_pixel(weight: Tensor, x: Tensor) -> Tensor:
    """[n, in, height, width] → [n, out, height, width] by a matrix, [out, in]; points by a plain product."""
    if places(x) == 1:
        return F.linear(x.flatten(1), weight)[:, :, None, None]
    return F.conv2d(x, weight[:, :, None, None])


class Squeeze(Step):
    """Squares of 2×2 pixels as four times the channels: [n, c, 2 h, 2 w] → [n, 4 c, h, w]."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A permutation of the pixels; both sides must be even."""
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """Pixels back in their places."""
        return F.pixel_shuffle(y, 2)


class Centre(Step):
    """x − ½, for values in [0, 1]."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A shift has the determinant 1."""
        return x - 0.5, x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """x = y + ½."""
        return y + 0.5


class Logit(Step):
    """y = logit(α + (1 − 2α) x), for values in [0, 1] and α in (0, ½): no bound of a pixel is left."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log |det| = Σ softplus(y) + softplus(−y) + ln(1 − 2α)."""
        y = torch.logit(self.alpha + (1 - 2 * self.alpha) * x)
        slopes = F.softplus(y) + F.softplus(-y) + math.log(1 - 2 * self.alpha)
        return y, slopes.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """x = (σ(y) − α)/(1 − 2α)."""
        return (y.sigmoid() - self.alpha) / (1 - 2 * self.alpha)
