"""Residual flow: invertible residual networks (Behrmann et al., 2019, arXiv:1811.00995; archives/6482; Chen et al., 2019, arXiv:1906.02735).

Blocks x + g(x) with Lip(g) < 1 between scales and shifts of channels (ActNorm), then a learned scale and shift a dimension under
a Gaussian prior. Images, dequantised to (i + u)/256, go through a logit and into halves of their sides. The log-determinant
of three dimensions or less is exact, that of more an estimate. Inverses are fixed points. In nats.
"""

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from genpipe.capabilities import Example, Invertible, Samples
from genpipe.nn.contractions import Activation, ResidualBlock, Shape
from genpipe.nn.examples import examples_of
from genpipe.nn.flow_steps import Squeeze, Step
from genpipe.nn.log_determinants import CLOSED, Operator, exact, probes, roulette, series
from genpipe.nn.pixels import DEQUANTISED, dequantised
from genpipe.params.blocks import Count, Factor
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update

Coefficient = Annotated[float, Field(gt=0, lt=1)]
Margin = Annotated[float, Field(gt=0, lt=0.5)]


class Affine(Step):
    """(x + shift) · exp(log_scale), of `shape` or what broadcasts to it; set by data, once, before training (ActNorm of Glow)."""

    def __init__(self, shape: Shape, repeats: int = 1) -> None:
        """`repeats`: how many numbers of an example each scale is of."""
        super().__init__()
        self.repeats = repeats
        self.log_scale, self.shift = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log |det| = repeats · Σ log_scale."""
        return (x + self.shift) * self.log_scale.exp(), (self.repeats * self.log_scale.sum()).expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """The x of `forward`."""
        return y * (-self.log_scale).exp() - self.shift

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Mean 0 and variance 1 of each channel, or number, of what comes out of these examples."""
        rows = x.transpose(0, 1).flatten(1).t() if self.repeats > 1 else x.flatten(1)
        self.shift.copy_(-rows.mean(0).view_as(self.shift))
        deviation = rows.std(0, correction=0).clamp(min=1e-3)
        self.log_scale.copy_(-deviation.log().view_as(self.log_scale))


class ResidualFlow(Recipe, Invertible, Samples):
    """An invertible network without couplings, of images or of points."""

    pixels = DEQUANTISED

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        dim: int | None = None,
        num_stages: Count = 2,
        num_blocks: Count = 6,
        width: Count = 32,
        coefficient: Coefficient = 0.9,
        activation: Activation = "lipswish",
        log_det: Literal["roulette", "series", "exact"] = "roulette",
        num_terms: Count = 2,
        margin: Margin = 1e-6,
        eval_terms: Count = 20,
        eval_probes: Count = 1,
        exact_dim: Factor = CLOSED,
    ) -> None:
        """`num_blocks` are of each stage; `coefficient` bounds the Lipschitz constant of each g; `num_terms`: of `series`, or before the coins.

        Log-determinants of `exact_dim` dimensions or less are exact, of more in training as `log_det` says, else by `eval_terms`
        and `eval_probes`.
        """
        super().__init__()
        self.key, shape = examples_of(image_shape, dim)
        self.dim, self.margin = math.prod(shape), margin
        self.log_det_kind, self.num_terms = log_det, num_terms
        self.eval_terms, self.eval_probes = eval_terms, eval_probes
        self.is_exact = self.dim <= exact_dim
        self.tightness = "exact" if self.is_exact else "estimate"
        self.shape = cast(Shape, shape if image_shape else (self.dim, 1, 1))
        self.layers = nn.ModuleList()
        at = self.shape
        for _ in range(num_stages if image_shape else 1):
            if at[1] % 2 == at[2] % 2 == 0:
                self.layers.append(Squeeze())
                at = (4 * at[0], at[1] // 2, at[2] // 2)
            for _ in range(num_blocks):
                self.layers.append(Affine((at[0], 1, 1), at[1] * at[2]))
                self.layers.append(ResidualBlock(at, width, coefficient, activation))
        self.layers.append(Affine(at))
        self.latent_shape = at

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood, after one pass that sets scales and shifts."""
        update = Update("nll", self.negative_log_likelihood, (self,), after=self.follow)
        return (Phase("likelihood", (update,), prepare=self.prepare),)

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Scales and shifts by the first batch."""
        x, _ = self._spread(self._observed(next(iter(batches))))
        for layer in self.layers:
            if isinstance(layer, Affine):
                layer.fit(x)
            x = x + layer.residual()(x) if isinstance(layer, ResidualBlock) else layer(x)[0]

    def follow(self) -> None:
        """Move the singular vectors after the weights."""
        for layer in self.layers:
            if isinstance(layer, ResidualBlock):
                layer.follow()

    def negative_log_likelihood(self, batch: Batch) -> Loss:
        """Nats an example, of dequantised images; `bits_per_dim` is that of the discrete image, and estimated as the loss is."""
        x = self._observed(batch)
        nll = -self.log_prob({self.key: x}).mean()
        if self.key == "points":
            return Loss(nll)
        bits_per_dim = (nll / self.dim + math.log(256)) / math.log(2)
        return Loss(nll, {"bits_per_dim": bits_per_dim.detach()})

    def prior_log_prob(self, z: Tensor, given: Example) -> Tensor:
        """Log-density in nats, [n], of independent Gaussian latents."""
        return -(z.square() + math.log(2 * math.pi)).sum(1) / 2

    def forward(self, x: Example) -> tuple[Tensor, Tensor]:
        """Latents, [n, dim], and the log-determinant, [n]; in evaluation that of an example is the same each time."""
        values = x[self.key]
        y, log_det = self._spread(values)
        noise = None if self.training or self.is_exact else self._noise(values)
        for layer in self.layers:
            y, changed = self._through(layer, y, noise) if isinstance(layer, ResidualBlock) else layer(y)
            log_det = log_det + changed
        return y.flatten(1), log_det

    def inverse(self, z: Tensor, given: Example) -> Example:
        """Examples of latents, [n, dim]; BadInput where a fixed point is not reached."""
        y = z.view(-1, *self.latent_shape)
        with torch.no_grad():
            for layer in reversed(self.layers):
                y = layer.inverse(y).x if isinstance(layer, ResidualBlock) else cast(Step, layer).inverse(y)
        if self.key == "points":
            return {"points": y.flatten(1)}
        return {"images": (y.sigmoid() - self.margin) / (1 - 2 * self.margin)}

    def sample(self, n: int, given: Example, temperature: Factor = 1.0) -> Example:
        """`n` examples: latents of the prior, its deviation times the temperature; images cut off to [0, 1]."""
        z = temperature * torch.randn(n, self.dim, dtype=next(self.parameters()).dtype)
        made = self.inverse(z, given)[self.key]
        return {self.key: made.clamp(0, 1) if self.key == "images" else made}

    def _observed(self, batch: Batch) -> Tensor:
        """What of a batch has a density."""
        dtype = next(self.parameters()).dtype
        return batch["points"].to(dtype) if self.key == "points" else dequantised(batch["images"], dtype)

    def _spread(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """What the layers take, [n, *shape], and the log-determinant: of images, in [0, 1], the logits of m + (1 − 2m) x."""
        if self.key == "points":
            return values.view(-1, *self.shape), values.new_zeros(len(values))
        # (i + u)/256 is exact, and so is 1 minus it: no digit of the smaller one is lost
        low, high = (self.margin + (1 - 2 * self.margin) * part for part in (values, 1 - values))
        slopes = math.log(1 - 2 * self.margin) - low.log() - high.log()
        return low.log() - high.log(), slopes.flatten(1).sum(1)

    def _through(
        self, block: ResidualBlock, x: Tensor, noise: Iterator[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """x + g(x), and the log-determinant, [n]; with gradients where they are asked for."""
        asked = torch.is_grad_enabled()
        with torch.enable_grad():
            start = x if asked and x.requires_grad else x.detach().requires_grad_()
            moved = block.residual()(start)
            operator = Operator.of_map(start, moved, block.bound, create_graph=asked)
            log_det = self._log_det(operator, start, noise)
        y = start + moved
        return (y, log_det) if asked else (y.detach(), log_det.detach())

    def _log_det(self, operator: Operator, x: Tensor, noise: Iterator[Tensor] | None) -> Tensor:
        if self.is_exact or (noise is None and self.log_det_kind == "exact"):
            return exact(operator, self.dim, x)
        if noise is not None:
            return series(operator, next(noise), self.eval_terms)
        v = probes(1, x)
        return (series if self.log_det_kind == "series" else roulette)(operator, v, self.num_terms)

    def _noise(self, values: Tensor) -> Iterator[Tensor]:
        """Probes of each block, [eval_probes, n, *shape]: those of an example are a function of its numbers, whatever is beside it."""
        rows = [zlib.crc32(row.numpy().tobytes()) for row in values.detach().cpu().contiguous()]
        generators = [torch.Generator().manual_seed(seed) for seed in rows]
        for layer in self.layers:
            if isinstance(layer, ResidualBlock):
                shape = (self.eval_probes, *layer.shape)
                signs = [torch.randint(0, 2, shape, generator=generator) for generator in generators]
                yield 2 * torch.stack(signs, 1).to(values.device, values.dtype) - 1
