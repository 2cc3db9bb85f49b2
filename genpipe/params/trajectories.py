"""Blocks of trajectories: observations of a system of differential equations, and tables of a person."""

import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genpipe.params.blocks import Block, RelativePath
from genpipe.params.systems import SYSTEMS, SystemName


class Equation(Block):
    """A system of differential equations, observed at few times from the time 0 on."""

    source: RelativePath
    kind: Literal["equation"]
    system: SystemName
    parameters: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="of the system, by name; others as by default"
    )
    start: tuple[Annotated[float, Field(gt=0)], ...] = Field((), description="the state at the time 0")
    times: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        min_length=1, description="of the observations, ascending"
    )
    euler_step: float | None = Field(
        None, gt=0, description="Euler's method of this step makes the data, in place of an accurate solution"
    )
    noise: float = Field(0.0, ge=0, lt=1, description="deviation of an observation, over its value")
    decimals: int | None = Field(None, ge=0, description="that observations are rounded to")
    until: float | None = Field(
        None, gt=0, description="how far the split later goes; twice the last time where it is not given"
    )
    num_test: int = Field(200, ge=1, description="times of the splits test and later each")
    seed: int = Field(0, ge=0, lt=2**63, description="of the noise")

    @model_validator(mode="after")
    def _fits_the_system(self) -> Self:
        system = SYSTEMS[self.system]
        unknown = [name for name in self.parameters if name not in system.parameters]
        if unknown:
            names = ", ".join(system.parameters)
            raise ValueError(f"parameters: {self.system} has {names}, and no {unknown[0]!r}")
        if len(self.start) not in (0, len(system.start)):
            raise ValueError(f"start: {self.system} has {len(system.start)} numbers, not {len(self.start)}")
        if any(b <= a for a, b in itertools.pairwise(self.times)):
            raise ValueError("times: must ascend")
        if self.until is not None and self.until <= self.times[-1]:
            raise ValueError("until: must be after the last of the times")
        return self


class TrajectoryFile(Block):
    """A .csv or .tsv file with a header: a column of times, and one for each coordinate of a system; a cell may be empty."""

    source: RelativePath
    kind: Literal["trajectory"]
    time: str | None = Field(None, description="the column of times; the first where none is given")
    test_every: int = Field(4, ge=2, description="one of so many rows is kept for testing")
    later_share: float = Field(
        0.2, ge=0, lt=1, description="share of the rows, the last, kept as the split later"
    )
