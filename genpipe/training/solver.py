"""How one update is minimised: an optimiser, learning rates by name, a schedule, clipping."""

import math
import re

import torch
from torch import Tensor, nn

from genpipe.errors import BadInput
from genpipe.params.training import Solver as SolverParams
from genpipe.recipe import Update


class Solver:
    """The optimiser of one update: its own parameters, and nothing else."""

    def __init__(
        self, update: Update, params: SolverParams, names: dict[nn.Parameter, str], steps: int
    ) -> None:
        self.params = params
        self.steps = steps
        self.names: list[str] = []
        self.parameters: list[nn.Parameter] = []
        for parameter in dict.fromkeys(p for module in update.modules for p in module.parameters()):
            self.parameters.append(parameter)
            self.names.append(names[parameter])
        self.optimiser = make_optimiser(params, self._groups(update))

    def step(self, gradients: list[Tensor], step: int) -> None:
        """Move the parameters along the gradients, one a parameter, at the learning rate of `step`."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.params.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.params.clip_norm, foreach=False)
        for group in self.optimiser.param_groups:
            group["lr"] = self.params.lr * group["multiplier"] * schedule(self.params, step, self.steps)
        self.optimiser.step()
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """The optimiser's tensors, by parameter and slot."""
        return {
            f"{name}/{slot}": value
            for name, parameter in zip(self.names, self.parameters, strict=True)
            for slot, value in self.optimiser.state[parameter].items()
            if isinstance(value, Tensor)
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the tensors that `state` gave; torch puts each where its optimiser wants it."""
        names = dict(zip(self.parameters, self.names, strict=True))
        packed = self.optimiser.state_dict()
        order = [names[parameter] for group in self.optimiser.param_groups for parameter in group["params"]]
        for number, name in enumerate(order):
            prefix = name + "/"
            slots = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
            if slots:
                packed["state"][number] = slots
        self.optimiser.load_state_dict(packed)

    def _groups(self, update: Update) -> list[dict]:
        """Parameters by learning-rate multiplier: that of the one pattern found in the name, else 1."""
        groups: dict[float, list[nn.Parameter]] = {}
        idle = set(self.params.lr_multipliers)
        for name, parameter in zip(self.names, self.parameters, strict=True):
            found = [pattern for pattern in self.params.lr_multipliers if re.search(pattern, name)]
            if len(found) > 1:
                raise BadInput(
                    f"solvers.{update.name}.lr_multipliers: {found[0]!r} and {found[1]!r} are both in the name "
                    f"of the parameter {name}; make them exclude each other"
                )
            idle -= set(found)
            multiplier = self.params.lr_multipliers[found[0]] if found else 1.0
            groups.setdefault(multiplier, []).append(parameter)
        for pattern in sorted(idle):
            raise BadInput(
                f"solvers.{update.name}.lr_multipliers: {pattern!r} is in no parameter name of that update"
            )
        return [{"params": parameters, "multiplier": multiplier} for multiplier, parameters in groups.items()]


def make_optimiser(params: SolverParams, groups: list[dict]) -> torch.optim.Optimizer:
    """The torch optimiser that `params` names."""
    lr, decay = params.lr, params.weight_decay
    if params.optimiser == "adam":
        return torch.optim.Adam(groups, lr, params.betas, weight_decay=decay, fused=True)
    if params.optimiser == "rmsprop":
        return torch.optim.RMSprop(groups, lr, params.alpha, weight_decay=decay, momentum=params.momentum)
    return torch.optim.SGD(groups, lr, params.momentum, weight_decay=decay)


def schedule(params: SolverParams, step: int, steps: int) -> float:
    """The factor on the learning rate at a step: linear warm-up, then the decay to 0 at the last step."""
    if step < params.warmup:
        return (step + 1) / params.warmup
    progress = (step - params.warmup) / max(1, steps - params.warmup)
    if params.decay == "linear":
        return 1 - progress
    if params.decay == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0
