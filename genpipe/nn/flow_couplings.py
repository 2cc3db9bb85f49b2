"""Couplings: one part of an image stays, the other is shifted and scaled by what a network makes of the first.

y = (x + t) e^s with t and s functions of the part that stays, log |det| = Σ s. Forms of s: `additive` 0 (NICE: Dinh, Krueger,
Bengio, 2014, arXiv:1410.8516); `tanh` c tanh(h) with a learned c for each channel (RealNVP: Dinh, Sohl-Dickstein, Bengio,
2016, arXiv:1605.08803); `sigmoid` ln σ(h + 2) (Glow: Kingma, Dhariwal, 2018, arXiv:1807.03039); `free` h, for learned priors.
In the last two h is bounded, 8 tanh(h/8): without a bound a rare latent makes pixels infinite on the way back.
RealNVP's paper has x e^s + t, its code the form here.

The last layer of every network starts at 0, so every form but `sigmoid` starts as the identity.
"""

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.nn.flow_steps import ActNorm, Step

Form = Literal["additive", "tanh", "sigmoid", "free"]
Place = tuple[int, int, int]  # channels, height and width of what a network gets
LARGEST = 8.0  # of what a network puts out for a scale
MakeNetwork = Callable[[Place, int], nn.Module]  # what it gets, and the channels that it puts out


class ZeroConv(nn.Module):
    """A convolution of 3×3 pixels, or of one, that starts at 0, times e^(3 g) with a learned g for each channel (Glow)."""

    def __init__(self, before: int, after: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, padding=kernel // 2)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # pyright: ignore[reportArgumentType]
        self.gain = nn.Parameter(torch.zeros(after, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, height, width] → [n, after, height, width]."""
        return self.conv(x) * (3 * self.gain).exp()


class Perceptron(nn.Module):
    """Points, [n, before, 1, 1] → [n, after, 1, 1]: `depth` hidden layers of `width` units."""

    def __init__(self, before: int, after: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [before] + [width] * depth
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(sizes[-1], after)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Rectifiers between the layers."""
        x = x.flatten(1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.last(x)[:, :, None, None]


class Residual(nn.Module):
    """RealNVP's network: a convolution, `depth` residual blocks of two, and one that starts at 0.

    Pixels of one class of pictures differ by their place: each place has a learned bias after the first convolution.
    """

    def __init__(self, place: Place, after: int, width: int, depth: int) -> None:
        super().__init__()
        before, height, columns = place
        self.first = nn.Conv2d(before, width, 3, padding=1)
        self.bias = nn.Parameter(torch.zeros(width, height, columns))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(depth)
        )
        self.last = ZeroConv(width, after)

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, height, width] → [n, after, height, width]."""
        x = self.first(x) + self.bias
        for block in self.blocks:
            x = x + block(x)
        return self.last(F.relu(x))


class Wide(nn.Module):
    """Glow's network: convolutions of 3×3, 1×1 and 3×3 pixels with ActNorm between them; the last starts at 0.

    Each place has a learned bias after the first ActNorm; Glow's own code lets the network see the border instead.
    """

    def __init__(self, place: Place, after: int, width: int) -> None:
        super().__init__()
        before, height, columns = place
        self.first = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 1, bias=False)
        self.norms = nn.ModuleList(ActNorm(width) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(width, height, columns))
        self.last = ZeroConv(width, after)

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, height, width] → [n, after, height, width]."""
        x = F.relu(self.norms[0](self.first(x))[0] + self.bias)
        return self.last(F.relu(self.norms[1](self.second(x))[0]))


class Coupling(Step):
    """Half of the channels, or the white fields of a checkerboard, stay; the other half moves. `turned` swaps the halves."""

    def __init__(
        self, place: Place, form: Form, make: MakeNetwork, turned: bool = False, board: bool = False
    ) -> None:
        super().__init__()
        self.form, self.turned, self.board = form, turned, board
        stays, moves = halves_of(place, turned, board)
        self.network = make(
            (stays, place[1], place[2] // 2 if board else place[2]), moves * num_outputs(form)
        )
        self.bound = nn.Parameter(torch.ones(moves, 1, 1)) if form == "tanh" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y = (x + t) e^s of the half that moves; log |det| = Σ s."""
        stays, moves = self._split(x)
        shift, log_scale = self._moved_by(stays)
        if log_scale is None:
            return self._joined(stays, moves + shift), x.new_zeros(len(x))
        return self._joined(stays, (moves + shift) * log_scale.exp()), log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """x = y e^−s − t."""
        stays, moves = self._split(y)
        shift, log_scale = self._moved_by(stays)
        back = moves if log_scale is None else moves * (-log_scale).exp()
        return self._joined(stays, back - shift)

    def _moved_by(self, stays: Tensor) -> tuple[Tensor, Tensor | None]:
        """t, and s where there is one."""
        out = self.network(stays)
        if self.form == "additive":
            return out, None
        shift, raw = out.chunk(2, 1)
        if self.bound is not None:
            return shift, self.bound * raw.tanh()
        raw = LARGEST * (raw / LARGEST).tanh()
        return shift, F.logsigmoid(raw + 2) if self.form == "sigmoid" else raw

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one, other = (
            fields(x) if self.board else (x[:, : (x.shape[1] + 1) // 2], x[:, (x.shape[1] + 1) // 2 :])
        )
        return (other, one) if self.turned else (one, other)

    def _joined(self, stays: Tensor, moves: Tensor) -> Tensor:
        one, other = (moves, stays) if self.turned else (stays, moves)
        return from_fields(one, other) if self.board else torch.cat([one, other], 1)


def num_outputs(form: Form) -> int:
    """What a network puts out for each channel that moves."""
    return 1 if form == "additive" else 2


def halves_of(place: Place, turned: bool, board: bool) -> tuple[int, int]:
    """The channels that stay and those that move."""
    channels = place[0]
    sizes = (channels, channels) if board else ((channels + 1) // 2, channels // 2)
    return (sizes[1], sizes[0]) if turned else sizes


def _is_odd_row(x: Tensor) -> Tensor:
    return (torch.arange(x.shape[2], device=x.device) % 2 == 1)[:, None]


def fields(x: Tensor) -> tuple[Tensor, Tensor]:
    """White and black fields of a checkerboard, [n, channels, height, width/2] each; the width must be even.

    Packed, as in Flow++ (Ho, Chen, Srinivas, Duan, Abbeel, 2019, arXiv:1902.00275): a network computes nothing for the rest.
    """
    left, right = x[..., ::2], x[..., 1::2]
    odd = _is_odd_row(x)
    return torch.where(odd, right, left), torch.where(odd, left, right)


def from_fields(white: Tensor, black: Tensor) -> Tensor:
    """The image, [n, channels, height, 2 · columns], of its fields."""
    odd = _is_odd_row(white)
    pairs = torch.where(odd, black, white), torch.where(odd, white, black)
    return torch.stack(pairs, -1).flatten(-2)
