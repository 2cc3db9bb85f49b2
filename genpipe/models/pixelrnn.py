"""PixelRNN with row LSTMs: Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016, arXiv:1601.06759).

A row of cells reads the row above it: the state of a pixel is made of the three states above, of the input at the pixel and to the left of it.
What a state knows of the rows above is a triangle, and of its own row the nearest pixels. Departs from the paper: smaller networks,
states as wide as the maps, Adam, and the same choice of likelihoods as PixelCNN.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genpipe.capabilities import LogProb, Restores, Samples
from genpipe.nn import discrete
from genpipe.nn.causal import Causal, CausalNetwork, Head, Map, groups_of, sigmoid
from genpipe.nn.classes import condition_classes
from genpipe.nn.raster import Raster
from genpipe.params.blocks import Count
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class PixelRNN(Raster, Recipe, LogProb, Samples, Restores):
    """`num_layers` row LSTMs with `width` channels, under the condition of a class if asked."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        likelihood: discrete.Name = "levels",
        conditional: bool = False,
        width: Count = 32,
        num_layers: Count = 3,
        first_reach: Count = 3,
        reach: Count = 1,
        num_logistics: Count = 5,
    ) -> None:
        """A convolution first looks at `first_reach` pixels to each side and up, the input of a cell at `reach` to the left."""
        super().__init__()
        classes = condition_classes(conditional, num_classes)
        self.set_up(image_shape, classes, discrete.of(likelihood, num_logistics))
        size = self.likelihood.size
        self.network = RowNetwork(image_shape[0], width, num_layers, first_reach, reach, size, classes)

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
class States:
    """Pictures that are being drawn: the input and the states of each layer, and what the row above tells the current one."""

    picture: Map
    inputs: list[Map]
    hidden: list[Map]
    cells: list[Map]
    context: list[Tensor]  # [n, 1, width, 4 · dim]
    classes: list[Tensor | None]


class RowNetwork(CausalNetwork):
    """A convolution with mask A, row LSTMs with residual connections, and the head."""

    def __init__(
        self,
        channels: int,
        width: int,
        num_layers: int,
        first_reach: int,
        reach: int,
        size: int,
        num_classes: int | None,
    ) -> None:
        super().__init__()
        self.channels, self.width, self.first_reach = channels, width, first_reach
        groups = groups_of(width, channels)
        about = {"above": first_reach, "left": first_reach, "right": first_reach}
        self.first = Causal(channels, width, **about, groups=(torch.arange(channels), groups), strict=True)
        self.layers = nn.ModuleList(RowLSTM(groups, reach, num_classes) for _ in range(num_layers))
        self.head = Head(width, channels, size)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[n, height, width, channels] → [n, height, width, channels · size]."""
        made = self.first(self.first.padded(x))
        for layer in self._layers():
            made = layer(made, labels)
        return self.head(made)

    def begin(self, n: int, height: int, width: int, labels: Tensor | None) -> States:
        """Empty maps and states."""
        like, layers = self.first.linear.weight, self._layers()
        picture = Map(n, height, width, self.channels, self.first_reach, like)
        inputs = [Map(n, height, width, self.width, layer.given.left, like) for layer in layers]
        hidden, cells = ([Map(n, height, width, self.width, 1, like) for _ in layers] for _ in range(2))
        return States(picture, inputs, hidden, cells, [], [layer.of_classes(labels) for layer in layers])

    def begin_row(self, state: States, row: int) -> None:
        """What the states of the row above tell this one; above the first row they are zeros."""
        state.context = []
        for layer, hidden, classes in zip(self._layers(), state.hidden, state.classes, strict=True):
            context = layer.above(hidden.rows(layer.above, row - 1))
            state.context.append(context if classes is None else context + classes)

    def pixel(self, state: States, row: int, column: int) -> Tensor:
        """The states of a pixel, and its parameters, [n, channels · size]."""
        made = self.first(state.picture.about(self.first, row, column))
        for i, layer in enumerate(self._layers()):
            state.inputs[i].set_pixel(row, column, made[:, 0, 0])
            given = layer.given(state.inputs[i].about(layer.given, row, column))
            context = state.context[i][:, :, column : column + 1]
            hidden, cell = layer.step(given + context, state.cells[i].at(row - 1, column))
            state.hidden[i].set_pixel(row, column, hidden[:, 0, 0])
            state.cells[i].set_pixel(row, column, cell[:, 0, 0])
            made = made + layer.mix(hidden)
        return self.head(made)[:, 0, 0]

    def _layers(self) -> list["RowLSTM"]:
        return [layer for layer in self.layers if isinstance(layer, RowLSTM)]


class RowLSTM(nn.Module):
    """A long short-term memory that goes from row to row, a cell for each column."""

    def __init__(self, groups: Tensor, reach: int, num_classes: int | None) -> None:
        super().__init__()
        dim = len(groups)
        self.given = Causal(dim, 4 * dim, left=reach, groups=(groups, groups.repeat(4)))
        self.above = Causal(dim, 4 * dim, left=1, right=1)  # of states: all of the row above is known
        self.mix = Causal(dim, dim, groups=(groups, groups))
        self.classes = nn.Embedding(num_classes, 4 * dim) if num_classes else None

    def of_classes(self, labels: Tensor | None) -> Tensor | None:
        """What is added before the gates, [n, 1, 1, 4 · dim]."""
        if self.classes is None or labels is None:
            return None
        return self.classes(labels).unsqueeze(1).unsqueeze(1)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[n, height, width, dim] → the same shape, x plus what the states say."""
        classes, given = self.of_classes(labels), self.given(self.given.padded(x))
        hidden = cell = torch.zeros_like(x[:, :1])
        rows: list[Tensor] = []
        for row in given.split(1, 1):
            context = self.above(self.above.padded(hidden))
            context = context if classes is None else context + classes
            hidden, cell = self.step(row + context, cell)
            rows.append(hidden)
        return x + self.mix(torch.cat(rows, 1))

    def step(self, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The new states, [n, 1, columns, dim] each, by sums before the gates, [n, 1, columns, 4 · dim], and cells above."""
        out, forget, take, new = gates.chunk(4, -1)
        cell = sigmoid(forget) * cell + sigmoid(take) * new.tanh()
        return sigmoid(out) * cell.tanh(), cell
