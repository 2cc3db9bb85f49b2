"""A linear autoencoder of images under the condition of their class.

Kingma and Welling, Auto-Encoding Variational Bayes, 2013, arXiv:1312.6114.
"""

import math
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from genpipe.capabilities import Bounds, Decodes, Encodes, Samples
from genpipe.nn.pixels import scaled
from genpipe.recipe import Loss, Phase, Recipe, Update


class ConditionalVAE(Recipe, Samples, Encodes, Decodes, Bounds):
    """Images under the condition of a class."""

    given: ClassVar[tuple[str, ...]] = ("labels",)

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, latent_dim: int = 4):
        super().__init__()
        self.image_shape, self.num_classes, self.latent_dim = image_shape, num_classes, latent_dim
        dim = math.prod(image_shape)
        self.encoder = nn.Linear(dim + num_classes, 2 * latent_dim)
        self.decoder = nn.Linear(latent_dim + num_classes, dim)

    def phases(self):
        return (Phase("likelihood", (Update("bound", self.bound, (self,)),)),)

    def bound(self, batch):
        x = {**batch, "images": scaled(batch["images"])}
        mean, log_var = self._posterior(x)
        z = mean + torch.randn_like(mean) * (log_var / 2).exp()
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
        error = (self.decode(z, batch)["images"] - x["images"]).square().flatten(1).sum(1)
        return Loss((error + kl).mean())

    def sample(self, n, given, scale: float = 1.0):
        return self.decode(scale * torch.randn(n, self.latent_dim), given)

    def log_weights(self, x, num):
        """Under the Gaussian of variance 1/2 that the squared error of `bound` stands for."""
        mean, log_var = self._posterior(x)
        posterior = torch.distributions.Normal(mean, (log_var / 2).exp())
        columns = []
        for _ in range(num):
            z = posterior.sample()
            made = torch.distributions.Normal(self.decode(z, x)["images"], 0.5**0.5).log_prob(x["images"])
            prior = torch.distributions.Normal(torch.zeros_like(z), 1.0).log_prob(z)
            columns.append(made.flatten(1).sum(1) + (prior - posterior.log_prob(z)).sum(1))
        return torch.stack(columns, 1)

    def encode(self, x):
        return self._posterior(x)[0]

    def decode(self, z, given):
        made = self.decoder(torch.cat([z, self._classes(given)], 1)).sigmoid()
        return {"images": made.unflatten(1, self.image_shape)}

    def _posterior(self, x):
        return self.encoder(torch.cat([x["images"].flatten(1), self._classes(x)], 1)).chunk(2, 1)

    def _classes(self, x):
        return F.one_hot(x["labels"], self.num_classes).to(self.encoder.weight.dtype)
