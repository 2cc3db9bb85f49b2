"""NICE: Non-linear Independent Components Estimation (Dinh, Krueger, Bengio, 2014, arXiv:1410.8516).

Additive couplings on even and odd pixels in turn, then a diagonal scaling, under a logistic prior.
Departs from the paper: smaller networks, Adam, and samples drawn at a lower temperature (as in archives/5776).
Log-likelihoods are in nats, on pixels dequantised to (i + u)/256.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Example, Invertible, Samples
from genpipe.nn.coupling import AdditiveCoupling
from genpipe.nn.pixels import DEQUANTISED, dequantised
from genpipe.params.blocks import Count, Factor
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class NICE(Recipe, Invertible, Samples):
    """A volume-preserving flow with one learned scale a pixel."""

    pixels = DEQUANTISED

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_couplings: Count = 4,
        hidden_dim: Count = 400,
        num_hidden: Count = 2,
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        dim = math.prod(image_shape)
        halves = ((dim + 1) // 2, dim // 2)  # even pixels, odd pixels
        self.couplings = nn.ModuleList(
            AdditiveCoupling(halves[i % 2], halves[1 - i % 2], hidden_dim, num_hidden)
            for i in range(num_couplings)
        )
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood."""
        return (Phase("likelihood", (Update("nll", self.negative_log_likelihood, (self,)),)),)

    def negative_log_likelihood(self, batch: Batch) -> Loss:
        """Nats an image of dequantised pixels; `bits_per_dim` is that of the discrete image."""
        x = dequantised(batch["images"], self.log_scale.dtype)
        nll = -self.log_prob({"images": x}).mean()
        bits_per_dim = (nll / x[0].numel() + math.log(256)) / math.log(2)
        return Loss(nll, {"bits_per_dim": bits_per_dim.detach()})

    def prior_log_prob(self, z: Tensor, given: Example) -> Tensor:
        """Log-density in nats, [batch], of independent logistic latents."""
        return -(F.softplus(z) + F.softplus(-z)).sum(1)

    def forward(self, x: Example) -> tuple[Tensor, Tensor]:
        """Latents, [batch, channels · height · width], even pixels first, and the log-determinant, [batch]."""
        pixels = x["images"].flatten(1)
        halves = [pixels[:, ::2], pixels[:, 1::2]]
        for i, coupling in enumerate(self.couplings):
            halves[1 - i % 2] = coupling(halves[i % 2], halves[1 - i % 2])
        return torch.cat(halves, dim=1) * self.log_scale.exp(), self.log_scale.sum().expand(len(pixels))

    def inverse(self, z: Tensor, given: Example) -> Example:
        """Images, [batch, channels, height, width], of latents, [batch, channels · height · width]."""
        halves = list((z * (-self.log_scale).exp()).split([(z.shape[1] + 1) // 2, z.shape[1] // 2], dim=1))
        for i, coupling in reversed(list(enumerate(self.couplings))):
            assert isinstance(coupling, AdditiveCoupling)
            halves[1 - i % 2] = coupling.inverse(halves[i % 2], halves[1 - i % 2])
        x = torch.empty_like(z)
        x[:, ::2], x[:, 1::2] = halves
        return {"images": x.unflatten(1, self.image_shape)}

    def sample(self, n: int, given: Example, temperature: Factor = 0.75) -> Example:
        """`n` images in [0, 1]: the prior of `log_prob`, its scale times the temperature."""
        u = torch.rand(n, math.prod(self.image_shape), dtype=self.log_scale.dtype).clamp(1e-6, 1 - 1e-6)
        made = self.inverse(temperature * torch.logit(u), given)
        return {"images": made["images"].clamp(0, 1)}
