"""A solver on its own: an update of a module, and turns of it without a trainer."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genpipe.params.training import Solver as SolverParams
from genpipe.recipe import Batch, Loss, Update
from genpipe.training.solver import Solver

STEPS = 1000


def solver_of(
    module: nn.Module,
    loss: Callable[[Batch], Loss],
    params: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
) -> Solver:
    """The solver that a block of params.yaml says, of an update named toy over all of a module."""
    names: dict[nn.Parameter, str] = {parameter: name for name, parameter in module.named_parameters()}
    update = Update("toy", loss, (module,))
    return Solver(update, SolverParams.model_validate(params), names, STEPS, facts or {})


def differentiate(solver: Solver, batch: Batch, step: int = 0, seed: int = 0) -> tuple[Loss, list[Tensor]]:
    """The loss of one slice and its gradients, under a seed."""
    torch.manual_seed(seed)
    loss = solver.loss(batch, step)
    return loss, list(torch.autograd.grad(loss.value, solver.parameters))


def turn(solver: Solver, batch: Batch, step: int = 0, seed: int = 0) -> dict[str, float]:
    """One turn on a batch of one slice; what the solver wants to log."""
    loss, gradients = differentiate(solver, batch, step, seed)
    torch.manual_seed(seed + 1)
    return solver.step(gradients, loss.value.item(), step)


class Point(nn.Module):
    """Numbers at which a function has a value."""

    def __init__(self, *start: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def loss(self, function: Callable[[Tensor], Tensor]) -> Callable[[Batch], Loss]:
        """The function as the loss of an update."""
        return lambda batch: Loss(function(self.x))
