"""The largest singular value of a convolution as a linear map of whole pictures.

The kernel as a matrix, [out, in k k], has another one: a kernel of ones, 3×3, has 3, and makes of a picture of 16×16 up to
(1 + 2 cos π/17)² = 8.80 times as much.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

ITERATIONS = 30  # at the start; one more for each pass in training

Size = tuple[int, int]


def note_input_sizes(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Write down the height and width of what each convolution gets of an example of `shape`, as its `input_size`."""

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        module.input_size = tuple(given[0].shape[-2:])  # pyright: ignore[reportArgumentType]

    hooks = [
        part.register_forward_pre_hook(note) for part in network.modules() if isinstance(part, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()


class ConvolutionNorm(nn.Module):
    """A parametrisation: the kernel over the largest singular value of its convolution of pictures of one size.

    The value comes from power iteration, and is never more than the true one; its singular vectors count as constants.
    """

    u: Tensor  # [1, in, height, width]
    v: Tensor  # [1, out, height after, width after]

    def __init__(self, conv: nn.Conv2d, size: Size) -> None:
        super().__init__()
        self._how = {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups")}
        weight = conv.weight.detach()
        u = torch.randn(1, conv.in_channels, *size, dtype=weight.dtype, device=weight.device)
        self.register_buffer("u", u)
        self.register_buffer("v", self._map(u, weight))
        for _ in range(ITERATIONS):
            self._iterate(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """The kernel, divided; a pass in training is one more iteration."""
        if self.training:
            self._iterate(weight.detach())
        return weight / self.norm(weight)

    def norm(self, weight: Tensor) -> Tensor:
        """The value along the current singular vectors."""
        # copies: the next iteration writes to them before the gradient is taken
        return (self.v.clone() * self._map(self.u.clone(), weight)).sum()

    def _iterate(self, weight: Tensor) -> None:
        with torch.no_grad():
            self.v.copy_(_unit(self._map(self.u, weight)))
            back = conv2d_input(cast(list[int], self.u.shape), weight, self.v, **self._how)
            self.u.copy_(_unit(back))

    def _map(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, **self._how)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp(min=1e-12)
