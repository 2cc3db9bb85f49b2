"""Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018, arXiv:1807.03039; archives/5807).

A step is ActNorm, a 1×1 convolution and a coupling of channels; steps at several scales, after each of which half of the
channels are done under a prior that the others give. Of points: ActNorm, a matrix and a coupling of coordinates. Departs from
the paper: smaller networks, a learned bias for each place in them, latents of the last scale with a Gaussian each, for each
class if asked, and no classifier beside the likelihood.
"""

from typing import Literal

from torch import nn

from genpipe.capabilities import Invertible, Samples
from genpipe.nn.classes import condition_classes
from genpipe.nn.flow import (
    Alpha,
    Density,
    DensityFlow,
    alpha_of,
    density_examples,
    scales_of,
    shapes_of,
    squeezed,
)
from genpipe.nn.flow_couplings import Coupling, Perceptron, Place, Wide
from genpipe.nn.flow_steps import ActNorm, Chain, Mix, Mixing, MixLU, Squeeze, Step
from genpipe.nn.multi_scale import MultiScale
from genpipe.nn.pixels import DEQUANTISED
from genpipe.params.blocks import Count
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update

DEPTH = 2  # hidden layers of the networks of points


class Glow(DensityFlow, Recipe, Invertible, Samples):
    """Steps at several scales, of images or of points, with a prior of each class if asked."""

    pixels = DEQUANTISED

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        dim: int | None = None,
        num_classes: int | None = None,
        coupling: Literal["additive", "affine"] = "affine",
        mixing: Mixing = "plain",
        num_scales: Count | None = None,
        num_steps: Count = 8,
        width: Count = 64,
        alpha: Alpha | None = None,
        learned_priors: bool = True,
        conditional: bool = False,
    ) -> None:
        """`num_steps` are those of a scale; `alpha` above 0 takes the logits of images, as RealNVP does."""
        super().__init__()
        examples, place = density_examples(image_shape, dim)
        self.mixing, self.width = mixing, width
        self.form: Literal["additive", "sigmoid"] = "additive" if coupling == "additive" else "sigmoid"
        halvings, alpha = scales_of(examples, num_scales), alpha_of(examples, alpha, 0)
        places = [squeezed(shape) for shape in shapes_of(place, halvings)[:-1]] or [place]
        opening = [Squeeze()] if halvings else []
        scales = [Chain(*opening, *(self._step(shape) for _ in range(num_steps))) for shape in places]
        classes = condition_classes(conditional, num_classes)
        self.density = Density(
            examples, alpha, MultiScale(scales, places, learned_priors, classes), "gaussian"
        )
        self.given = ("labels",) if conditional else ()

    def _step(self, place: Place) -> Step:
        mix = MixLU(place[0]) if self.mixing == "lu" else Mix(place[0])
        return Chain(ActNorm(place[0]), mix, Coupling(place, self.form, self._network))

    def _network(self, place: Place, after: int) -> nn.Module:
        if place[1] == place[2] == 1:
            return Perceptron(place[0], after, self.width, DEPTH)
        return Wide(place, after, self.width)

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood."""
        update = Update("nll", self.negative_log_likelihood, (self,))
        return (Phase("likelihood", (update,), prepare=self.density.start),)

    def negative_log_likelihood(self, batch: Batch) -> Loss:
        """Nats an example, of images dequantised; `bits_per_dim` is that of the discrete image."""
        return Loss(*self.density.nats(batch))
