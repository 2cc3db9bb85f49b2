"""A recurrent network whose cell is the step of an ODE solver: parameters of a system from few observations (Su, archives/5643).

Running the network solves the equations; back-propagation through time finds their parameters. Many fits, each from a start of its
own, are trained at once as one batch, and their spread is the error bar. Departs from the article: Heun's method and RK4 beside
Euler's, logarithms of parameters in units of the data instead of raw ones, errors over the size of each coordinate, several fits.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from genpipe.capabilities import Infers
from genpipe.errors import BadInput
from genpipe.nn.solvers import METHODS, MethodName, states_at
from genpipe.params.blocks import Count, Factor, Positive
from genpipe.params.systems import SYSTEMS, SystemName
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update, mean_over

LEAST = 1e-12  # a squared error; 0 has no logarithm
AHEAD = 1e-9  # of a step: what rounding may add to a whole number of steps
Spread = Annotated[float, Field(ge=1)]


class ODERNN(Recipe, Infers):
    """`num_fits` sets of parameters of one system, and a solver that follows them from the first state of the data."""

    units: Tensor
    signs: Tensor
    scales: Tensor
    shift: Tensor
    initial: Tensor
    weights: Tensor

    def __init__(
        self,
        system: SystemName,
        dim: int,
        initial_state: tuple[float, ...],
        first_time: float,
        last_time: float,
        scales: tuple[float, ...],
        num_observations: int,
        method: MethodName = "rk4",
        step: Positive = 1.0,
        num_fits: Count = 16,
        rate: Positive | None = None,
        spread: Spread = 3.0,
        bound: Positive = 1000.0,
        learn_start: bool = False,
        resample: bool = False,
        favour_early: Factor = 0.0,
    ) -> None:
        """`rate`: a guess of the relative change of states in a unit of time; by default 5 divided by the observed time.

        A parameter of a fit begins within a factor `spread` of its unit. Derivatives are clipped to `bound` sizes of a coordinate.
        `learn_start`: the first state is fitted too. `resample`: each fit weighs the observations by random numbers of its own.
        `favour_early`: how many powers of e the last observation weighs less than the state at the start, falling to 0 at half of the training:
        of a system that oscillates the first observations are fitted first, for all at once have many local minima.
        """
        super().__init__()
        self.system = SYSTEMS[system]
        if len(self.system.coordinates) != dim:
            raise BadInput(
                f"system: {system} has the coordinates {', '.join(self.system.coordinates)}, and the data has {dim}; name another system"
            )
        self.method, self.step, self.bound, self.favour_early = METHODS[method], step, bound, favour_early
        self.first_time, self.last_time = first_time, last_time
        units = self.system.units(rate or 5 / (last_time - first_time), scales)
        for name, value in (
            ("units", units),
            ("signs", self.system.signs),
            ("scales", scales),
            ("initial", initial_state),
        ):
            self.register_buffer(name, torch.tensor(value))
        drawn = 2 * torch.rand(num_fits, len(units)) - 1
        self.log_parameters = nn.Parameter(drawn * math.log(spread))
        if learn_start:
            self.shift = nn.Parameter(torch.zeros(num_fits, dim))
        else:
            self.register_buffer("shift", torch.zeros(num_fits, dim))
        weights = -torch.log1p(-torch.rand(num_fits, num_observations)) if resample else None
        self.register_buffer(
            "weights", weights if weights is not None else torch.ones(num_fits, num_observations)
        )

    def phases(self) -> tuple[Phase, ...]:
        """One update over everything."""
        return (Phase("fit", (Update("fit", self.squared_error, (self,)),)),)

    def squared_error(self, batch: Batch) -> Loss:
        """Mean squared error at observed times, over the size of each coordinate, over observations and fits."""
        num_steps = self._num_steps(self.last_time)
        states = self._states(self._values(), self._starts(), batch["times"], num_steps)
        errors = ((states.transpose(0, 1) - batch["values"]) / self.scales).square()
        keep = batch["seen"] * self._weights(batch).unsqueeze(-1)
        return mean_over(errors, keep, digits=(errors + LEAST).log10() / 2)

    def _weights(self, batch: Batch) -> Tensor:
        """Of each observation for each fit, [fits, batch]."""
        weights = self.weights[:, batch["rows"]]
        if not self.favour_early:
            return weights
        share = (batch["times"] - self.first_time) / (self.last_time - self.first_time)
        return weights * (-self.favour_early * (1 - 2 * batch["progress"]).clamp(min=0) * share).exp()

    def parameters_found(self) -> dict[str, Tensor]:
        """Each parameter of the system, [fits]."""
        return dict(zip(self.system.parameters, self._values().unbind(1), strict=True))

    def fitted(self, times: Tensor) -> Tensor:
        """States of each fit at times, [fits, times, dim], from its first state on."""
        states = self._states(self._values(), self._starts(), times, self._num_steps(float(times.max())))
        return states.transpose(0, 1)

    def trajectory(self, start: Tensor, times: Tensor) -> Tensor:
        """States, [n, times, dim], from `start`, [n, dim], at the first time of the data, by the median of each parameter over fits."""
        parameters = self._values().quantile(0.5, dim=0, keepdim=True)
        states = self._states(parameters, start, times, self._num_steps(float(times.max())))
        return states.transpose(0, 1)

    def _values(self) -> Tensor:
        return self.units * self.log_parameters.exp()

    def _starts(self) -> Tensor:
        """The first state of each fit, [fits, dim]."""
        return self.initial + self.scales * self.shift

    def _num_steps(self, end: float) -> int:
        return max(0, math.ceil((end - self.first_time) / self.step - AHEAD))

    def _states(self, parameters: Tensor, start: Tensor, times: Tensor, num_steps: int) -> Tensor:
        """States at times, [times, rows, dim], from `start`, [rows, dim], each row with its parameters, or all with one."""
        groups, most = self.system.groups(parameters), self.bound * self.scales

        def derivative(t: Tensor | float, x: Tensor) -> Tensor:
            found = self.signs * x * self.system.growth(groups, x, x.flip(-1))
            return torch.minimum(torch.maximum(found, -most), most)

        return states_at(self.method, derivative, start, self.first_time, self.step, times, num_steps)
