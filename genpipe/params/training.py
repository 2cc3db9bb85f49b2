"""Blocks that weights depend on; the defaults here are part of what is trained."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genpipe.params.blocks import Block, DecayRate, Factor, Free, Pattern
from genpipe.params.techniques import (
    BatchTechnique,
    ClipNorm,
    ClipValue,
    Flooding,
    GradientTechnique,
    LossTechnique,
    Normalisation,
    WeightTechnique,
)

OF_OPTIMISER = {
    "adam": {"betas", "eps", "weight_decay"},
    "adamw": {"betas", "eps", "weight_decay"},
    "sgd": {"momentum", "weight_decay"},
    "momentum": {"momentum", "lookahead", "weight_decay"},
    "rmsprop": {"alpha", "momentum", "eps", "eps_inside", "weight_decay"},
    "lamb": {"betas", "eps", "weight_decay"},
    "polyak": {"minimum", "max_rate"},
}


class Solver(Block):
    """How one update is minimised."""

    optimiser: Literal["adam", "adamw", "sgd", "momentum", "rmsprop", "lamb", "polyak"] = "adam"
    lr: float = Field(1e-3, gt=0)
    betas: tuple[DecayRate, DecayRate] = Field((0.9, 0.999), description="adam, adamw, lamb")
    eps: float = Field(1e-8, gt=0, description="adam, adamw, lamb, rmsprop")
    eps_inside: bool = Field(False, description="rmsprop: eps is inside the root")
    alpha: DecayRate = Field(0.99, description="rmsprop")
    momentum: DecayRate = Field(0.0, description="momentum, rmsprop, sgd")
    lookahead: float = Field(
        0.0, ge=0, le=1, description="momentum: 0 heavy ball, 0.5 Nesterov at half a step, 1 Nesterov"
    )
    minimum: float = Field(0.0, description="polyak: the least value that the loss can have")
    max_rate: float = Field(1000.0, gt=0, description="polyak: bound on 1 / norm of the gradient")
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    decay: Literal["constant", "linear", "cosine"] = "constant"
    piecewise: dict[Annotated[int, Field(ge=0)], Factor] = Field(
        default_factory=dict, description="step -> factor on lr, linear between, constant outside"
    )
    lr_multipliers: dict[Pattern, Factor] = Field(
        default_factory=dict, description="regular expression on names -> factor"
    )
    accumulate: int = Field(1, ge=1, description="turns whose mean gradient makes one move")
    batch: tuple[BatchTechnique, ...] = ()
    loss: tuple[LossTechnique, ...] = Field((), description="each wraps those before it")
    gradients: tuple[GradientTechnique, ...] = ()
    weights: tuple[WeightTechnique, ...] = Field((), description="projections after each move")

    @model_validator(mode="after")
    def _knobs_turn_something(self) -> Self:
        knobs = set().union(*OF_OPTIMISER.values()) - OF_OPTIMISER[self.optimiser]
        idle = sorted(knobs & self.model_fields_set)
        if idle:
            raise ValueError(f"{idle[0]} has no effect on {self.optimiser}; take it out")
        if self.optimiser == "momentum" and not self.momentum:
            raise ValueError("momentum: must be more than 0 for the optimiser momentum; or take sgd")
        if self.piecewise and (self.warmup or self.decay != "constant"):
            raise ValueError("piecewise is the whole schedule; take warmup and decay out")
        return self

    @model_validator(mode="after")
    def _losses_compose(self) -> Self:
        for name, kinds in (("batch", self.batch), ("loss", self.loss)):
            done = [kind.do for kind in kinds]
            if len(set(done)) < len(done):
                raise ValueError(
                    f"{name}: {max(done, key=done.count)} is in the list twice; keep one of them"
                )
        if any(isinstance(technique, Flooding) for technique in self.loss[:-1]):
            raise ValueError("loss: flooding acts on the mean of the whole batch; put it last in the list")
        return self

    @model_validator(mode="after")
    def _polyak_sees_the_loss_and_its_gradient(self) -> Self:
        if self.optimiser != "polyak":
            return self
        if any(isinstance(technique, Flooding) for technique in self.loss):
            raise ValueError("loss: flooding turns polyak away from its minimum; set minimum to the level")
        for technique in self.gradients:
            # The step is L g / |g|²: a gradient that is scaled down makes it longer, not shorter.
            if isinstance(technique, ClipNorm | ClipValue):
                raise ValueError(f"gradients: {technique.do} lengthens the step of polyak; set max_rate")
        return self


class Best(Block):
    """The metric that picks the best checkpoint: of a judge, or by its mean over the steps since the checkpoint before."""

    metric: str = Field(
        description="UPDATE.METRIC, as the log has it, or validation.METRIC on the rows of batches.validation"
    )
    direction: Literal["lowest", "highest"] = "lowest"
    num: int = Field(1000, ge=1, description="samples drawn for validation.METRIC")

    @property
    def validation(self) -> str | None:
        """The metric of a judge, where it is one."""
        prefix, _, name = self.metric.partition(".")
        return name if prefix == "validation" else None


class Training(Block):
    """How a recipe is trained."""

    batch_size: int = Field(ge=1)
    steps: int = Field(ge=1)
    logical_workers: int = Field(4, ge=1, description="slices of a batch; part of the result")
    exchange: Literal["exact", "fast"] = Field(
        "exact", description="fast: an all-reduce, whose bits depend on the number of processes"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: autocast of the losses"
    )
    ema: DecayRate | None = Field(
        None, description="decay of the bias-corrected average of the weights that is exported"
    )
    normalisations: dict[Pattern, Normalisation] = Field(
        default_factory=dict, description="regular expression on names -> parametrisation"
    )
    checkpoint_every: int = Field(200, ge=1)
    keep: int = Field(2, ge=1, description="checkpoints; the one before in case the newest is broken")
    best: Best | None = Field(None, description="keeps the best checkpoint too, and exports it")
    log_every: int = Field(20, ge=1, description="steps that a point of the curve is the mean of")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="instead of the project's; blocks that differ in it alone are one line of results, with mean and spread",
    )
    frames: int = Field(
        0,
        ge=0,
        description="how often samples are drawn from the same noise during the training, for an animation; 0: never",
    )
    batches: dict[str, Free] = Field(
        default_factory=dict, description="how batches are made: options of the data's kind"
    )
    network: dict[str, Free] = Field(default_factory=dict, description="arguments of the model's constructor")
    solvers: dict[str, Solver]

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % self.logical_workers:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of logical_workers {self.logical_workers}; "
                f"take {self.batch_size // self.logical_workers * self.logical_workers or self.logical_workers}"
            )
        return self
