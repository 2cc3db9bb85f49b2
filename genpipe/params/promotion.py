"""Which metrics a new model must show before it replaces the one in production."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from genpipe.errors import BadInput
from genpipe.metrics import is_maximised
from genpipe.params.blocks import Block, Name


class Rule(Block):
    """What one metric must be: better than production's by `min_gain`, and no worse than `bound`."""

    metric: Name
    direction: Literal["maximise", "minimise"] | None = Field(
        None, description="that of the metric, which genpipe/metrics.py has; another one is an error"
    )
    min_gain: float | None = Field(
        None,
        description="over the model in production; 0 is as good as it, a negative one may be that much worse",
    )
    bound: float | None = Field(None, description="at least this (maximise), or at most (minimise)")

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.min_gain is None and self.bound is None:
            raise ValueError("a rule without min_gain and bound asks for nothing; give it one of them")
        return self

    @model_validator(mode="after")
    def _direction_is_that_of_the_metric(self) -> Self:
        known = "maximise" if self.is_maximised else "minimise"
        if self.direction not in (None, known):
            raise ValueError(
                f"direction: {self.metric} is to {known}, not to {self.direction}; take direction out"
            )
        return self

    @property
    def is_maximised(self) -> bool:
        """Whether more of the metric is better."""
        try:
            return is_maximised(self.metric, "metric")
        except BadInput as error:
            raise ValueError(str(error)) from None

    def gain(self, new: float, production: float) -> float:
        """How much better the new value is, in units of the metric; negative when it is worse."""
        return new - production if self.is_maximised else production - new


Rules = Mapping[str, tuple[Rule, ...]]  # of each recipe that may be promoted
