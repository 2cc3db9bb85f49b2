"""Coupling flows: NICE by additive couplings (Dinh, Krueger, Bengio, 2014, arXiv:1410.8516) and RealNVP by affine ones (Dinh,
Sohl-Dickstein, Bengio, Density Estimation using Real NVP, 2016, arXiv:1605.08803; archives/5776, archives/5807).

Couplings of checkerboards, then of channels, at each scale; after a scale half of the channels are done. Of points: couplings
of the coordinates. Departs from RealNVP: packed checkerboards, ActNorm by default, learned priors of what is done at a scale,
smaller networks without normalisation inside, no penalty on scales.
"""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from genpipe.capabilities import Invertible, Samples
from genpipe.nn.classes import condition_classes
from genpipe.nn.flow import (
    ALPHA,
    Alpha,
    Density,
    DensityFlow,
    Latents,
    alpha_of,
    density_examples,
    scales_of,
    shapes_of,
    squeezed,
)
from genpipe.nn.flow_couplings import Coupling, Perceptron, Place, Residual
from genpipe.nn.flow_steps import ActNorm, BatchNorm, Chain, Squeeze, Step
from genpipe.nn.multi_scale import MultiScale
from genpipe.nn.pixels import DEQUANTISED
from genpipe.params.blocks import Count
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class CouplingFlow(DensityFlow, Recipe, Invertible, Samples):
    """Couplings at several scales, of images or of points, with a prior of each class if asked."""

    pixels = DEQUANTISED

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        dim: int | None = None,
        num_classes: int | None = None,
        coupling: Literal["additive", "affine"] = "affine",
        norm: Literal["actnorm", "batch", "none"] = "actnorm",
        num_scales: Count | None = None,
        num_couplings: Count = 3,
        width: Count = 32,
        depth: Count = 2,
        alpha: Alpha | None = None,
        learned_priors: bool = True,
        latents: Latents = "gaussian",
        conditional: bool = False,
    ) -> None:
        """`num_couplings` are those of one kind at a scale; `alpha: 0` takes images as they are, not their logits."""
        super().__init__()
        examples, place = density_examples(image_shape, dim)
        self.norm, self.width, self.depth = norm, width, depth
        self.form: Literal["additive", "tanh"] = "additive" if coupling == "additive" else "tanh"
        halvings, alpha = scales_of(examples, num_scales), alpha_of(examples, alpha, ALPHA)
        *before, last = shapes_of(place, halvings)
        scales = [self._scale(shape, num_couplings) for shape in before]
        scales.append(Chain(*self._couplings(last, num_couplings + 1, board=last[2] % 2 == 0)))
        classes = condition_classes(conditional, num_classes)
        flow = MultiScale(scales, [*map(squeezed, before), last], learned_priors, classes)
        self.density = Density(examples, alpha, flow, latents)
        self.given = ("labels",) if conditional else ()

    def _scale(self, place: Place, number: int) -> Step:
        """Couplings of a checkerboard, and of the channels that its squares become."""
        boards = self._couplings(place, number, board=True)
        return Chain(*boards, Squeeze(), *self._couplings(squeezed(place), number, board=False))

    def _couplings(self, place: Place, number: int, board: bool) -> Iterator[Step]:
        """Couplings whose halves swap, each with its normalisation."""
        for i in range(number):
            yield Coupling(place, self.form, self._network, turned=i % 2 == 1, board=board)
            if self.norm != "none":
                yield ActNorm(place[0]) if self.norm == "actnorm" else BatchNorm(place[0])

    def _network(self, place: Place, after: int) -> nn.Module:
        if place[1] == place[2] == 1:
            return Perceptron(place[0], after, self.width, self.depth)
        return Residual(place, after, self.width, self.depth)

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood."""
        update = Update("nll", self.negative_log_likelihood, (self,))
        return (Phase("likelihood", (update,), prepare=self.density.start),)

    def negative_log_likelihood(self, batch: Batch) -> Loss:
        """Nats an example, of images dequantised; `bits_per_dim` is that of the discrete image."""
        return Loss(*self.density.nats(batch))
