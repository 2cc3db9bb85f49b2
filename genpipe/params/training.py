"""Blocks that weights depend on; the defaults here are part of what is trained."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from genpipe.params.blocks import Block, DecayRate, Factor, Pattern

OF_OPTIMISER = {"adam": {"betas"}, "rmsprop": {"alpha", "momentum"}, "sgd": {"momentum"}}


class Solver(Block):
    """How one update is minimised."""

    optimiser: Literal["adam", "rmsprop", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    betas: tuple[DecayRate, DecayRate] = Field((0.9, 0.999), description="adam")
    alpha: DecayRate = Field(0.99, description="rmsprop")
    momentum: DecayRate = Field(0.0, description="rmsprop, sgd")
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    decay: Literal["constant", "linear", "cosine"] = "constant"
    lr_multipliers: dict[Pattern, Factor] = Field(
        default_factory=dict, description="regular expression on names -> factor"
    )
    clip_norm: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _knobs_turn_something(self) -> Self:
        knobs = set().union(*OF_OPTIMISER.values()) - OF_OPTIMISER[self.optimiser]
        idle = sorted(knobs & self.model_fields_set)
        if idle:
            raise ValueError(f"{idle[0]} has no effect on {self.optimiser}; take it out")
        return self


class Training(Block):
    """How a recipe is trained."""

    batch_size: int = Field(ge=1)
    steps: int = Field(ge=1)
    logical_workers: int = Field(4, ge=1, description="slices of a batch; part of the result")
    checkpoint_every: int = Field(200, ge=1)
    log_every: int = Field(20, ge=1, description="steps that a point of the curve is the mean of")
    network: dict[str, Any] = Field(default_factory=dict, description="arguments of the model's constructor")
    solvers: dict[str, Solver]

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % self.logical_workers:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of logical_workers {self.logical_workers}; "
                f"take {self.batch_size // self.logical_workers * self.logical_workers or self.logical_workers}"
            )
        return self
