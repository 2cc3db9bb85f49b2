"""Gated PixelCNN: Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016, arXiv:1606.05328).

Each pixel is drawn given those above it and those to the left of it. A vertical stack of layers sees all rows above, a horizontal one the
pixels to the left and the vertical one: no pixel before is out of sight, as it is where masked convolutions are stacked. Of a
pixel in colours the channels are drawn in their order. Departs from the paper: rows of the vertical stack are moved down
once before the horizontal stack reads them, and logistics (Salimans et al., 2017, arXiv:1701.05517) are a choice.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import LogProb, Restores, Samples
from genpipe.nn import discrete
from genpipe.nn.causal import Causal, CausalNetwork, Head, Map, gate, groups_of
from genpipe.nn.classes import condition_classes
from genpipe.nn.raster import Raster
from genpipe.params.blocks import Count
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class PixelCNN(Raster, Recipe, LogProb, Samples, Restores):
    """Gated stacks of `num_blocks` blocks with `width` channels, under the condition of a class if asked."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        likelihood: discrete.Name = "levels",
        conditional: bool = False,
        width: Count = 32,
        num_blocks: Count = 6,
        first_reach: Count = 3,
        reach: Count = 1,
        num_logistics: Count = 5,
    ) -> None:
        """The first block looks at `first_reach` pixels to each side and up, the others at `reach`."""
        super().__init__()
        classes = condition_classes(conditional, num_classes)
        self.set_up(image_shape, classes, discrete.of(likelihood, num_logistics))
        reaches = [first_reach, *[reach] * (num_blocks - 1)]
        self.network = GatedStacks(image_shape[0], width, reaches, self.likelihood.size, classes)

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood."""
        return (Phase("likelihood", (Update("nll", self.negative_log_likelihood, (self,)),)),)

    def negative_log_likelihood(self, batch: Batch) -> Loss:
        """Nats an image, of its bytes or bits; of bytes also bits a dimension."""
        nll = -self.of_batch(batch).mean()
        if self.observes == "bits":
            return Loss(nll)
        return Loss(nll, {"bits_per_dim": nll.detach() / math.prod(self.image_shape) / math.log(2)})


@dataclass
class Maps:
    """Maps of pictures that are being drawn: the picture, and what each block read and made of it."""

    picture: Map
    down: list[Map]  # of the vertical stack, the input of each block but the first
    right: list[Map]  # of the horizontal stack
    context: list[Tensor]  # what each block of the horizontal stack gets from above, [n, 1, width, 2 · dim]
    classes: list[Tensor | None]


class GatedStacks(CausalNetwork):
    """A vertical and a horizontal stack of gated blocks, and the head on the horizontal one."""

    def __init__(
        self, channels: int, width: int, reaches: list[int], size: int, num_classes: int | None
    ) -> None:
        super().__init__()
        self.width = width
        groups = groups_of(width, channels)
        self.blocks = nn.ModuleList(
            Block(groups if i else torch.arange(channels), groups, reach, not i, num_classes)
            for i, reach in enumerate(reaches)
        )
        self.head = Head(width, channels, size)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[n, height, width, channels] → [n, height, width, channels · size]."""
        down = right = x
        for block in self._blocks():
            classes = block.of_classes(labels)
            above = block.vertical(block.vertical.padded(down))
            if classes is not None:
                above = above + classes
            context = block.context(F.pad(above[:, :-1], (0, 0, 0, 0, 1, 0)))
            right = block.step(block.horizontal.padded(right), right, context, classes)
            down = gate(above)
        return self.head(right)

    def begin(self, n: int, height: int, width: int, labels: Tensor | None) -> Maps:
        """Empty maps."""
        like = self.head.first.linear.weight
        empty = lambda block: Map(n, height, width, self.width, block.reach, like)
        blocks = self._blocks()
        picture = Map(n, height, width, blocks[0].in_dim, blocks[0].reach, like)
        down, right = ([empty(block) for block in blocks[1:]] for _ in range(2))
        return Maps(picture, down, right, [], [block.of_classes(labels) for block in blocks])

    def begin_row(self, state: Maps, row: int) -> None:
        """The vertical stack of the row above, and what it tells this row; nothing is above the first one."""
        blocks = self._blocks()
        if not row:
            values = state.picture.values
            nothing = values.new_zeros(len(values), 1, state.picture.width, 2 * self.width)
            state.context = [block.context(nothing) for block in blocks]
            return
        state.context = []
        for i, (block, classes) in enumerate(zip(blocks, state.classes, strict=True)):
            above = block.vertical([state.picture, *state.down][i].rows(block.vertical, row - 1))
            if classes is not None:
                above = above + classes
            state.context.append(block.context(above))
            if i < len(state.down):
                state.down[i].set_row(row - 1, gate(above))

    def pixel(self, state: Maps, row: int, column: int) -> Tensor:
        """The horizontal stack at a pixel, [n, channels · size]."""
        maps = [state.picture, *state.right]
        made = state.picture.values[:, :1, :1]
        for i, (block, classes) in enumerate(zip(self._blocks(), state.classes, strict=True)):
            about = maps[i].about(block.horizontal, row, column)
            made = block.step(about, made, state.context[i][:, :, column : column + 1], classes)
            if i < len(state.right):
                state.right[i].set_pixel(row, column, made[:, 0, 0])
        return self.head(made)[:, 0, 0]

    def _blocks(self) -> list["Block"]:
        return [block for block in self.blocks if isinstance(block, Block)]


class Block(nn.Module):
    """One block of both stacks."""

    def __init__(
        self, before: Tensor, groups: Tensor, reach: int, is_first: bool, num_classes: int | None
    ) -> None:
        super().__init__()
        self.reach, self.is_first, self.in_dim = reach, is_first, len(before)
        dim = len(groups)
        both = (before, groups.repeat(2))
        self.vertical = Causal(self.in_dim, 2 * dim, above=reach, left=reach, right=reach)
        self.context = Causal(2 * dim, 2 * dim)
        self.horizontal = Causal(self.in_dim, 2 * dim, left=reach, groups=both, strict=is_first)
        self.mix = Causal(dim, dim, groups=(groups, groups))
        self.classes = nn.Embedding(num_classes, 2 * dim) if num_classes else None

    def of_classes(self, labels: Tensor | None) -> Tensor | None:
        """What is added before the gates of both stacks, [n, 1, 1, 2 · dim]."""
        if self.classes is None or labels is None:
            return None
        return self.classes(labels).unsqueeze(1).unsqueeze(1)

    def step(self, about: Tensor, before: Tensor, context: Tensor, classes: Tensor | None) -> Tensor:
        """The horizontal stack; a first block does not add what it read, which is the pixel itself."""
        total = self.horizontal(about) + context
        made = self.mix(gate(total if classes is None else total + classes))
        return made if self.is_first else before + made
