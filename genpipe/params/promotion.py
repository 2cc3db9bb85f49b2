"""Which metrics a new model must show before it replaces the one in production."""

from typing import Literal, Self

from pydantic import Field, model_validator

from genpipe.params.blocks import Block, Name


class Rule(Block):
    """What one metric must be: better than production's by `min_gain`, and no worse than `bound`."""

    metric: Name
    direction: Literal["maximise", "minimise"]
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

    def gain(self, new: float, production: float) -> float:
        """How much better the new value is, in units of the metric; negative when it is worse."""
        return new - production if self.direction == "maximise" else production - new
