"""Generators, critics and encoders by name, for images and for points, with a class as condition.

An example is a point, shape (dim,), or an image, shape (channels, height, width), in [−1, 1]. Architectures: `mlp` (also for
points), `dcgan` (Radford, Metz, Chintala, 2015, arXiv:1511.06434, small) and `resnet` (that of Gulrajani et al., 2017,
arXiv:1704.00028, and of Miyato et al., 2018, arXiv:1802.05957, small). Only generators normalise over the batch: what a
critic or an encoder says of an example is the example's own.

The class goes into a generator as a learned vector beside the code, into an encoder as one added to its features before the
last activation, and into a critic as a learned vector times its features, which is a projection (Miyato & Koyama, cGANs
with Projection Discriminator, 2018, arXiv:1802.05637).
"""

import itertools
from typing import Literal, cast

import torch
from torch import Tensor, nn

from genpipe.errors import BadInput
from genpipe.nn.conv import LEAST, ConvEncoder, ConvGenerator, halvings_of
from genpipe.nn.operator_norm import note_input_sizes
from genpipe.nn.residual import ResidualEncoder, ResidualGenerator

Architecture = Literal["mlp", "dcgan", "resnet"]
Shape = tuple[int, ...]  # of an example
SLOPE = 0.2  # of leaky rectifiers below 0


def perceptron(*sizes: int) -> nn.Sequential:
    """[batch, sizes[0]] → [batch, sizes[-1]]: linear layers with leaky rectifiers between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.LeakyReLU(SLOPE), nn.Linear(before, after)]
    return nn.Sequential(*layers[1:])


def image_shape_of(architecture: Architecture, shape: Shape) -> tuple[int, int, int]:
    """The shape of an image; BadInput where examples are points, or too small for convolutions."""
    if len(shape) != 3:
        raise BadInput(f"architecture: {architecture} takes images, and these are points; take mlp")
    if min(shape[1:]) < 2 * LEAST:
        raise BadInput(
            f"architecture: {architecture} takes images of 8×8 or more, not {shape[1]}×{shape[2]}; take mlp, or set "
            "datasets.*.image_size"
        )
    return cast(tuple[int, int, int], tuple(shape))


def features(architecture: Architecture, shape: Shape, width: int, feature_dim: int) -> nn.Module:
    """[batch, *shape] → [batch, feature_dim], without a last activation.

    `width`: units of a hidden layer of `mlp`; feature maps of the first layer of `dcgan`, of all layers of `resnet`.
    """
    if architecture == "mlp":
        size = int(torch.Size(shape).numel())
        return nn.Sequential(nn.Flatten(), *perceptron(size, width, width, feature_dim))
    image_shape = image_shape_of(architecture, shape)
    make = ConvEncoder if architecture == "dcgan" else ResidualEncoder
    network = make(image_shape, width, feature_dim, halvings_of(image_shape))
    note_input_sizes(network, image_shape)
    return network


class Generator(nn.Module):
    """Codes, [batch, latent_dim], and classes, int64 [batch] → examples, [batch, *shape]; images in [−1, 1].

    A `plain` one has neither batch normalisation nor the last tanh: its outputs are parameters of a likelihood.
    """

    def __init__(
        self,
        architecture: Architecture,
        shape: Shape,
        latent_dim: int,
        width: int,
        num_classes: int | None = None,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.classes = nn.Embedding(num_classes, latent_dim) if num_classes else None
        in_dim = 2 * latent_dim if num_classes else latent_dim
        self.layers = self._layers(architecture, shape, in_dim, width, plain)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, latent_dim] and, where there are classes, int64 [batch] → [batch, *shape]."""
        if self.classes is not None:
            z = torch.cat([z, self.classes(labels).to(z)], 1)
        return self.layers(z)

    @staticmethod
    def _layers(architecture: Architecture, shape: Shape, in_dim: int, width: int, plain: bool) -> nn.Module:
        if architecture == "mlp":
            layers = perceptron(in_dim, width, width, width, int(torch.Size(shape).numel()))
            bounds = [] if plain else [nn.Tanh()]
            return nn.Sequential(*layers, *bounds, nn.Unflatten(1, shape)) if len(shape) > 1 else layers
        image_shape = image_shape_of(architecture, shape)
        make = ConvGenerator if architecture == "dcgan" else ResidualGenerator
        return make(image_shape, width, in_dim, halvings_of(image_shape), plain)


class Critic(nn.Module):
    """Examples, [batch, *shape], and classes, int64 [batch] → scores, [batch], high for real ones.

    The last layer has no bias: where only differences of scores count, its gradient is 0, and elsewhere those of the layers
    before it serve. With a class, its vector is added to the weights of the last layer.
    """

    def __init__(
        self,
        architecture: Architecture,
        shape: Shape,
        width: int,
        feature_dim: int,
        num_classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = features(architecture, shape, width, feature_dim)
        self.activation = nn.Sequential(nn.LeakyReLU(SLOPE), *([nn.Dropout(dropout)] if dropout else []))
        self.head = nn.Linear(feature_dim, 1, bias=False)
        self.classes = nn.Embedding(num_classes, feature_dim) if num_classes else None
        if self.classes is not None:
            nn.init.uniform_(self.classes.weight, -(feature_dim**-0.5), feature_dim**-0.5)  # as the head's

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, *shape] and, where there are classes, int64 [batch] → [batch]."""
        found = self.activation(self.features(x))
        score = self.head(found).squeeze(1)
        return score if self.classes is None else score + (self.classes(labels) * found).sum(1)


class Encoder(nn.Module):
    """Examples, [batch, *shape], and classes, int64 [batch] → [batch, out_dim]."""

    def __init__(
        self,
        architecture: Architecture,
        shape: Shape,
        width: int,
        feature_dim: int,
        out_dim: int,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.features = features(architecture, shape, width, feature_dim)
        self.classes = nn.Embedding(num_classes, feature_dim) if num_classes else None
        self.head = nn.Sequential(nn.LeakyReLU(SLOPE), nn.Linear(feature_dim, out_dim))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, *shape] and, where there are classes, int64 [batch] → [batch, out_dim]."""
        found = self.features(x)
        return self.head(found if self.classes is None else found + self.classes(labels))
