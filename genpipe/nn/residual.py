"""Residual encoder and generator of images (Gulrajani et al., 2017, arXiv:1704.00028, figure of CIFAR-10; smaller)."""

from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.nn.conv import smallest


class Down(nn.Module):
    """[batch, in, 2 h, 2 w] → [batch, out, h, w]: two convolutions and the mean of 2×2, beside a mean and a 1×1 convolution."""

    def __init__(self, before: int, after: int, is_first: bool) -> None:
        super().__init__()
        # the first block gets pixels: a rectifier would cut them off
        self.start: nn.Module = nn.Identity() if is_first else nn.LeakyReLU(0.2)
        self.one = nn.Conv2d(before, after, 3, padding=1)
        self.two = nn.Conv2d(after, after, 3, padding=1)
        self.beside = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Half the height and the width."""
        found = self.two(F.leaky_relu(self.one(self.start(x)), 0.2))
        return F.avg_pool2d(found, 2) + self.beside(F.avg_pool2d(x, 2))


class Up(nn.Module):
    """[batch, width, h, w] → [batch, width, 2 h, 2 w]: each pixel four times, two convolutions, beside the pixels themselves."""

    def __init__(self, width: int, plain: bool = False) -> None:
        super().__init__()
        self.norm_one, self.norm_two = (nn.Identity() if plain else nn.BatchNorm2d(width) for _ in range(2))
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Twice the height and the width."""
        found = self.one(doubled(F.relu(self.norm_one(x))))
        return self.two(F.relu(self.norm_two(found))) + doubled(x)


def doubled(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResidualEncoder(nn.Module):
    """[batch, channels, height, width] in [−1, 1] → [batch, out_dim]; without normalisation."""

    def __init__(self, image_shape: tuple[int, int, int], width: int, out_dim: int, halvings: int) -> None:
        super().__init__()
        rows, columns = smallest(image_shape, halvings)
        blocks = [Down(image_shape[0] if i == 0 else width, width, i == 0) for i in range(halvings)]
        self.layers = nn.Sequential(
            *blocks, nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(width * rows * columns, out_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → [batch, out_dim]."""
        return self.layers(x)


class ResidualGenerator(nn.Module):
    """[batch, latent_dim] → [batch, channels, height, width] in [−1, 1].

    A `plain` one has neither batch normalisation nor the last tanh: its outputs are parameters of a likelihood.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: int,
        latent_dim: int,
        halvings: int,
        plain: bool = False,
    ) -> None:
        super().__init__()
        rows, columns = smallest(image_shape, halvings)
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, width * rows * columns),
            nn.Unflatten(1, (width, rows, columns)),
            *(Up(width, plain) for _ in range(halvings)),
            *([] if plain else [nn.BatchNorm2d(width)]),
            nn.ReLU(),
            nn.Conv2d(width, image_shape[0], 3, padding=1),
            *([] if plain else [nn.Tanh()]),
        )

    def forward(self, z: Tensor) -> Tensor:
        """[batch, latent_dim] → [batch, channels, height, width]."""
        return self.layers(z)
