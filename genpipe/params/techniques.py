"""The techniques of a solver: each is an item of an ordered list in params.yaml, named by `do`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genpipe.params.blocks import Block, Pattern

Bound = Annotated[float, Field(gt=0)]
Inputs = Annotated[tuple[str, ...], Field(min_length=1, description="names of what is mixed in a batch")]
Normalisation = Literal["spectral", "spectral_convolution", "weight", "orthogonal"]


class Mixup(Block):
    """Convex combinations of examples and of their labels, with one share a slice, from Beta(alpha, alpha)."""

    do: Literal["mixup"]
    alpha: float = Field(1.0, gt=0)
    inputs: Inputs = ("images",)
    labels: str = "labels"


class SamplePairing(Block):
    """The mean of two examples with the label of the first, in periods counted in steps from `start` on."""

    do: Literal["sample_pairing"]
    inputs: Inputs = ("images",)
    start: int = Field(0, ge=0, description="the first step")
    stop: int | None = Field(None, description="the step before which it ends; null: never")
    steps_on: int = Field(8, ge=1)
    steps_off: int = Field(2, ge=0)

    @model_validator(mode="after")
    def _stops_after_start(self) -> Self:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop: must be a step after start, {self.start}, not {self.stop}")
        return self


class Flooding(Block):
    """Gradient ascent while the mean loss of the whole batch is below `level`."""

    do: Literal["flooding"]
    level: float


class FGM(Block):
    """The loss, plus the loss where the matching parameters are moved by `epsilon` up the gradient."""

    do: Literal["fgm"]
    parameters: Pattern
    epsilon: float = Field(1.0, gt=0)


class RDrop(Block):
    """Two passes with two dropout masks, and a price on the divergence of their predictions."""

    do: Literal["r_drop"]
    weight: float = Field(4.0, gt=0)


class ClipNorm(Block):
    """Gradients scaled down by their norm: that of all together, or each by its own."""

    do: Literal["clip_norm"]
    bound: Bound
    form: Literal["hard", "soft"] = "hard"
    scope: Literal["all", "parameter"] = "all"


class ClipValue(Block):
    """Each entry of a gradient cut to ±bound."""

    do: Literal["clip_value"]
    bound: Bound


class Centralise(Block):
    """Gradients of matrices and kernels with mean 0 for each output."""

    do: Literal["centralise"]


class Noise(Block):
    """Gaussian noise on every entry of a gradient."""

    do: Literal["noise"]
    std: float = Field(gt=0)


class Bounded(Block):
    """After the step, at most `bound`: the largest singular value, the norm of each output, or each entry."""

    do: Literal["spectral", "ball", "clip"]
    parameters: Pattern
    bound: Bound = 1.0


class Exact(Block):
    """After the step, each output has norm 1, or the matrix orthonormal rows or columns."""

    do: Literal["unit", "orthogonal"]
    parameters: Pattern


BatchTechnique = Annotated[Mixup | SamplePairing, Field(discriminator="do")]
LossTechnique = Annotated[Flooding | FGM | RDrop, Field(discriminator="do")]
GradientTechnique = Annotated[ClipNorm | ClipValue | Centralise | Noise, Field(discriminator="do")]
WeightTechnique = Annotated[Bounded | Exact, Field(discriminator="do")]
