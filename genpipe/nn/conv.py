"""Small convolutional encoder and generator for images whose sides can be halved (Radford et al., DCGAN, 2015)."""

import itertools

from torch import Tensor, nn

from genpipe.errors import BadInput

LEAST = 4  # rows and columns of the smallest feature maps


def smallest(image_shape: tuple[int, int, int], halvings: int = 2) -> tuple[int, int]:
    """Height and width after some halvings."""
    _, height, width = image_shape
    scale = 2**halvings
    if height % scale or width % scale:
        raise BadInput(
            f"the sides of images must be multiples of {scale}, not {height}×{width}; set datasets.*.image_size"
        )
    return height // scale, width // scale


def halvings_of(image_shape: tuple[int, int, int]) -> int:
    """How often both sides can be halved, so that 4 rows and columns or more are left: 28 twice to 7, 32 three times to 4."""
    _, *sides = image_shape
    number = 0
    while all(side % 2 == 0 and side // 2 >= LEAST for side in sides):
        sides = [side // 2 for side in sides]
        number += 1
    if not number:
        raise BadInput(
            "the sides of images must be even and 8 or more for this network, not "
            f"{image_shape[1]}×{image_shape[2]}; set datasets.*.image_size, or take the architecture mlp"
        )
    return number


class ConvEncoder(nn.Module):
    """[batch, channels, height, width] in [−1, 1] → [batch, out_dim]; no normalisation, so an example's code is its own.

    Each halving but the first doubles the number of feature maps, `width` at first.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], width: int, out_dim: int, halvings: int = 2
    ) -> None:
        super().__init__()
        rows, columns = smallest(image_shape, halvings)
        maps = [image_shape[0], *(width * 2**i for i in range(halvings))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(maps):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(maps[-1] * rows * columns, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → [batch, out_dim]."""
        return self.layers(x)


class ConvGenerator(nn.Module):
    """[batch, latent_dim] → [batch, channels, height, width] in [−1, 1]; the feature maps are those of the encoder.

    A `plain` one has neither batch normalisation nor the last tanh: its outputs are parameters of a likelihood.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: int,
        latent_dim: int,
        halvings: int = 2,
        plain: bool = False,
    ) -> None:
        super().__init__()
        rows, columns = smallest(image_shape, halvings)
        maps = [*(width * 2**i for i in reversed(range(halvings))), image_shape[0]]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, maps[0] * rows * columns),
            nn.Unflatten(1, (maps[0], rows, columns)),
        ]
        for before, after in itertools.pairwise(maps):
            layers += [
                *([] if plain else [nn.BatchNorm2d(before)]),
                nn.ReLU(),
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1),
            ]
        self.layers = nn.Sequential(*layers, *([] if plain else [nn.Tanh()]))

    def forward(self, z: Tensor) -> Tensor:
        """[batch, latent_dim] → [batch, channels, height, width]."""
        return self.layers(z)
