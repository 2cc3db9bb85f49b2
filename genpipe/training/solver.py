"""How one update is minimised: an optimiser, learning rates by name, a schedule, and the techniques of params.yaml."""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from genpipe.errors import BadInput
from genpipe.params.techniques import FGM, Flooding, RDrop
from genpipe.params.training import Solver as SolverParams
from genpipe.recipe import Batch, Loss, Update
from genpipe.training.batch_transforms import batch_transform
from genpipe.training.grad_transforms import SUM, Accumulator, transform_gradients
from genpipe.training.loss_transforms import LossFunction, fgm, flood, r_drop
from genpipe.training.optimisers import make_optimiser
from genpipe.training.weight_transforms import output_dims, project, refuse_vector


class Solver:
    """The optimiser of one update: its own parameters, and nothing else."""

    def __init__(
        self,
        update: Update,
        params: SolverParams,
        names: Mapping[nn.Parameter, str],
        steps: int,
        facts: Mapping[str, Any],
    ) -> None:
        """`names` are those of the recipe's parameters, `steps` those of the training, `facts` those of its data."""
        self.params = params
        self.steps = steps
        self.parameters: list[nn.Parameter] = list(
            dict.fromkeys(p for module in update.modules for p in module.parameters())
        )
        self.names: list[str] = [names[parameter] for parameter in self.parameters]
        self._where = f"solvers.{update.name}"
        self._after = update.after
        self._output_dims = output_dims(update.modules, self.parameters)
        self._batch = [batch_transform(technique, facts, self._where) for technique in params.batch]
        self._loss = self._transformed(update)
        self._levels = [technique.level for technique in params.loss if isinstance(technique, Flooding)]
        self._projections = self._projections_of()
        self._accumulator = Accumulator(params.accumulate)
        self.optimiser = make_optimiser(params, self._groups())

    def loss(self, batch: Batch, step: int) -> Loss:
        """The loss of the update on a slice of a batch, with the techniques on batch and loss around it."""
        for transform in self._batch:
            batch = transform(batch, step)
        return self._loss(batch)

    def step(self, gradients: list[Tensor], value: float, step: int, weight: float = 1.0) -> dict[str, float]:
        """Move the parameters along the gradients, one a parameter, at the learning rate of `step`.

        `value` is the mean loss of the whole batch, `weight` its number of units: accumulated turns are weighed by it.
        Returns scalars worth logging: `grad_norm`, before it is clipped.
        """
        mean = self._accumulator.add(gradients, value, weight)
        if mean is None:
            return {}
        gradients, value = mean
        for level in self._levels:
            gradients = flood(gradients, value, level)
        gradients, scalars = transform_gradients(self.params.gradients, gradients, self._output_dims)
        self._move(gradients, value, step)
        return {name: scalar.item() for name, scalar in scalars.items()}

    def _move(self, gradients: list[Tensor], value: float, step: int) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        for group in self.optimiser.param_groups:
            group["lr"] = self.params.lr * group["multiplier"] * schedule(self.params, step, self.steps)
        self.optimiser.step(lambda: value)
        for parameter in self.parameters:
            parameter.grad = None
        for projection in self._projections:
            projection()
        if self._after:
            self._after()

    def state(self) -> dict[str, Tensor]:
        """The tensors that go from step to step: the optimiser's by parameter and slot, and sums under way."""
        slots = {
            f"{name}/{slot}": value
            for name, parameter in zip(self.names, self.parameters, strict=True)
            for slot, value in self.optimiser.state[parameter].items()
            if isinstance(value, Tensor)
        }
        return {**slots, **self._accumulator.state(self.names)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the tensors that `state` gave; torch puts each where its optimiser wants it."""
        self._accumulator.load(state, self.names, self.parameters)
        names = dict(zip(self.parameters, self.names, strict=True))
        packed = self.optimiser.state_dict()
        order = [names[parameter] for group in self.optimiser.param_groups for parameter in group["params"]]
        for number, name in enumerate(order):
            prefix = name + "/"
            slots = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
            slots.pop(SUM, None)
            if slots:
                packed["state"][number] = slots
        self.optimiser.load_state_dict(packed)

    def _transformed(self, update: Update) -> LossFunction:
        """The loss with the techniques around it, each around those before; flooding is a matter of the whole batch."""
        loss: LossFunction = update.loss
        for technique in self.params.loss:
            if isinstance(technique, FGM):
                attacked = [self.parameters[i] for i in self._fitting(technique.parameters, "loss")]
                loss = fgm(loss, update.modules, attacked, technique.epsilon)
            elif isinstance(technique, RDrop):
                loss = r_drop(loss, technique.weight, self._where)
        return loss

    def _projections_of(self) -> list[Callable[[], None]]:
        """What is to be done to the weights after each move, in order."""
        projections = []
        for technique in self.params.weights:
            for i in self._fitting(technique.parameters, "weights"):
                parameter, name = self.parameters[i], self.names[i]
                refuse_vector(parameter, technique, name, f"{self._where}.weights")
                projections.append(partial(project, parameter, technique, self._output_dims[i]))
        return projections

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by learning-rate multiplier: that of the one pattern found in the name, else 1."""
        multipliers = [1.0] * len(self.parameters)
        patterns: dict[int, str] = {}
        for pattern, multiplier in self.params.lr_multipliers.items():
            for i in self._fitting(pattern, "lr_multipliers"):
                if i in patterns:
                    raise BadInput(
                        f"{self._where}.lr_multipliers: {patterns[i]!r} and {pattern!r} are both in the name of the "
                        f"parameter {self.names[i]}; make them exclude each other"
                    )
                patterns[i], multipliers[i] = pattern, multiplier
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter, multiplier in zip(self.parameters, multipliers, strict=True):
            groups.setdefault(multiplier, []).append(parameter)
        return [{"params": parameters, "multiplier": multiplier} for multiplier, parameters in groups.items()]

    def _fitting(self, pattern: str, key: str) -> list[int]:
        """The numbers of the parameters in whose names the pattern is."""
        found = [i for i, name in enumerate(self.names) if re.search(pattern, name)]
        if not found:
            raise BadInput(
                f"{self._where}.{key}: {pattern!r} is in no parameter name of that update, which has: "
                f"{', '.join(self.names)}"
            )
        return found


def schedule(params: SolverParams, step: int, steps: int) -> float:
    """The factor on the learning rate at a step: linear warm-up, then the decay to 0 at the last step; or by points."""
    if params.piecewise:
        return interpolated(params.piecewise, step)
    if step < params.warmup:
        return (step + 1) / params.warmup
    progress = (step - params.warmup) / max(1, steps - params.warmup)
    if params.decay == "linear":
        return 1 - progress
    if params.decay == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0


def interpolated(points: Mapping[int, float], step: int) -> float:
    """The factor at a step: linear between the points, constant before the first and after the last."""
    for (start, low), (stop, high) in pairwise(sorted(points.items())):
        if start <= step < stop:
            return low + (high - low) * (step - start) / (stop - start)
    return points[min(points)] if step < min(points) else points[max(points)]
