"""VAE: Auto-Encoding Variational Bayes (Kingma, Welling, 2013, arXiv:1312.6114; archives/5716).

A decoder says how likely an example is given a code, an encoder which codes an example may have; their bound on the
log-likelihood, the ELBO, is maximised. A Bernoulli decoder observes bits (pixels i ≥ 128), a Gaussian one the values of
dequantised pixels. β weighs the divergence of the codes from their prior (Higgins et al., 2017); only β = 1 is the bound.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from genpipe.capabilities import Bounds, Decodes, Encodes, Example, Samples
from genpipe.errors import BadInput
from genpipe.nn import variational
from genpipe.nn.classes import condition_classes, labels_of, labels_of_batch
from genpipe.nn.examples import examples_of
from genpipe.nn.networks import Architecture, Encoder, Generator
from genpipe.nn.pixels import dequantised, dequantised_to_bytes, scaled
from genpipe.params.blocks import Count, Factor, Positive
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update

DEVIATION = 0.3  # at first
Share = Annotated[float, Field(ge=0, le=1)]


class VAE(Recipe, Samples, Encodes, Decodes, Bounds):
    """Encoder and decoder against one bound, of images or of points, under the condition of a class if asked."""

    log_deviation: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        dim: int | None = None,
        num_classes: int | None = None,
        likelihood: Literal["bernoulli", "gaussian"] = "gaussian",
        deviations: Literal["fixed", "shared", "pixel"] | None = None,
        deviation: Positive | None = None,
        conditional: bool = False,
        architecture: Architecture = "dcgan",
        latent_dim: Count = 16,
        width: Count = 32,
        feature_dim: Count = 128,
        beta: Factor = 1.0,
        warmup: Share = 0.0,
    ) -> None:
        """`deviations` and `deviation` are of the Gaussian likelihood; `None` stands for `shared` and 0.3."""
        super().__init__()
        self.key, shape = examples_of(image_shape, dim)
        if likelihood == "bernoulli" and self.key == "points":
            raise BadInput(
                "train.network.likelihood: bernoulli takes images, and these are points; take gaussian"
            )
        for knob, value in (("deviations", deviations), ("deviation", deviation)):
            if likelihood == "bernoulli" and value is not None:
                raise BadInput(
                    f"train.network.{knob} has no effect on bernoulli; take it out, or take the likelihood gaussian"
                )
        self.is_binary = likelihood == "bernoulli"
        self.observes = "bits" if self.is_binary else "values"
        self.latent_dim, self.beta, self.warmup = latent_dim, beta, warmup
        self.num_classes = condition_classes(conditional, num_classes)
        self.given = ("labels",) if conditional else ()
        classes = self.num_classes
        self.encoder = Encoder(architecture, shape, width, feature_dim, 2 * latent_dim, classes)
        self.decoder = Generator(architecture, shape, latent_dim, width, classes, plain=True)
        start = torch.full(shape if deviations == "pixel" else (), deviation or DEVIATION).log()
        if self.is_binary or deviations == "fixed":
            self.register_buffer("log_deviation", start)
        else:
            self.log_deviation = nn.Parameter(start)

    def phases(self) -> tuple[Phase, ...]:
        """One update over everything."""
        return (Phase("likelihood", (Update("bound", self.negative_elbo, (self,)),)),)

    def negative_elbo(self, batch: Batch) -> Loss:
        """Nats an example: distortion, −ln p(x | z) of one z ~ q(z | x), plus the weighted divergence of q(z | x) from N(0, I)."""
        x, labels = self._observed(batch), labels_of_batch(batch, self.num_classes)
        mean, log_var = self._posterior(x, labels)
        noise = variational.standard(len(mean), self.latent_dim, mean)
        distortion = -self._log_likelihood(x, variational.moved(mean, log_var, noise), labels)
        rate = variational.divergence(mean, log_var)
        metrics = {"distortion": distortion, "rate": rate, "negative_elbo": distortion + rate}
        value = (distortion + self._weight(batch["progress"]) * rate).mean()
        return Loss(value, {name: metric.mean().detach() for name, metric in metrics.items()})

    def log_weights(self, x: Example, num: int) -> Tensor:
        """ln p(x, z) − ln q(z | x) in nats, [n, num]; images are 0 and 1, or dequantised values, as `observes` says."""
        labels = labels_of(x, self.num_classes)
        mean, log_var = self._posterior(x[self.key], labels)
        found = []
        for _ in range(num):
            noise = variational.standard(len(mean), self.latent_dim, mean)
            z = variational.moved(mean, log_var, noise)
            ratio = variational.log_ratio(z, noise, log_var)
            found.append(self._log_likelihood(x[self.key], z, labels) + ratio)
        return torch.stack(found, 1)

    def sample(self, n: int, given: Example, temperature: Factor = 1.0, observe: bool = False) -> Example:
        """`n` examples: means of p(x | z), or with `observe` draws of it, of codes z of the deviation `temperature`."""
        z = temperature * variational.standard(n, self.latent_dim, next(self.parameters()))
        if not observe:
            return self.decode(z, given)
        out = self.decoder(z, labels_of(given, self.num_classes))
        if self.is_binary:
            return {"images": torch.bernoulli(out.sigmoid())}
        drawn = self._mean(out) + self.log_deviation.exp() * torch.randn_like(out)
        if self.key == "points":
            return {"points": drawn}
        return {"images": scaled(dequantised_to_bytes(drawn), drawn.dtype)}

    def encode(self, x: Example) -> Tensor:
        """Means of q(z | x), [n, latent_dim]."""
        values = x[self.key]
        observed = (values >= 0.5).to(values.dtype) if self.is_binary else values
        return self._posterior(observed, labels_of(x, self.num_classes))[0]

    def decode(self, z: Tensor, given: Example) -> Example:
        """Means of p(x | z), images cut off to [0, 1]; of bits they are the probabilities of 1."""
        out = self.decoder(z, labels_of(given, self.num_classes))
        if self.is_binary:
            return {"images": out.sigmoid()}
        mean = self._mean(out)
        return {self.key: mean.clamp(0, 1) if self.key == "images" else mean}

    def _observed(self, batch: Batch) -> Tensor:
        """What of a batch has a likelihood: bits or dequantised pixels, or points."""
        dtype = self.log_deviation.dtype
        if self.key == "points":
            return batch["points"].to(dtype)
        return (batch["images"] >= 128).to(dtype) if self.is_binary else dequantised(batch["images"], dtype)

    def _posterior(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Means and log-variances of q(z | x), [n, latent_dim] each."""
        mean, log_var = self.encoder(2 * x - 1 if self.key == "images" else x, labels).chunk(2, 1)
        return mean, log_var

    def _log_likelihood(self, x: Tensor, z: Tensor, labels: Tensor | None) -> Tensor:
        """ln p(x | z), [n]."""
        out = self.decoder(z, labels)
        if self.is_binary:
            return variational.bernoulli(x, out)
        return variational.gaussian(x, self._mean(out), self.log_deviation)

    def _mean(self, out: Tensor) -> Tensor:
        """The mean of a Gaussian likelihood: images are in [−1, 1] for networks."""
        return (out + 1) / 2 if self.key == "images" else out

    def _weight(self, progress: Tensor) -> Tensor | float:
        """β, which rises linearly from 0 in the first `warmup` of the training."""
        return self.beta * (progress / self.warmup).clamp(max=1) if self.warmup else self.beta
