"""Small convolutional encoder and generator for images whose sides are multiples of four (Radford et al., DCGAN, 2015)."""

from torch import Tensor, nn

from genpipe.errors import BadInput


def quarter(image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width after two halvings."""
    _, height, width = image_shape
    if height % 4 or width % 4:
        raise BadInput(
            f"the sides of images must be multiples of 4, not {height}×{width}; set datasets.*.image_size"
        )
    return height // 4, width // 4


class ConvEncoder(nn.Module):
    """[batch, channels, height, width] in [−1, 1] → [batch, out_dim]; no normalisation, so an example's code is its own."""

    def __init__(self, image_shape: tuple[int, int, int], width: int, out_dim: int) -> None:
        super().__init__()
        rows, columns = quarter(image_shape)
        self.layers = nn.Sequential(
            nn.Conv2d(image_shape[0], width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * width * rows * columns, out_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → [batch, out_dim]."""
        return self.layers(x)


class ConvGenerator(nn.Module):
    """[batch, latent_dim] → [batch, channels, height, width] in [−1, 1]."""

    def __init__(self, image_shape: tuple[int, int, int], width: int, latent_dim: int) -> None:
        super().__init__()
        rows, columns = quarter(image_shape)
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 2 * width * rows * columns),
            nn.Unflatten(1, (2 * width, rows, columns)),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, image_shape[0], 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """[batch, latent_dim] → [batch, channels, height, width]."""
        return self.layers(z)
