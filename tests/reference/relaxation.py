"""States that relax towards a limit, each coordinate at a rate of its own: ẋ = k (c − x), solved exactly."""

import torch
from torch import nn

from genpipe.capabilities import Solves
from genpipe.recipe import Phase, Recipe, Update, mean_over


class Relaxation(Recipe, Solves):
    """x(t) = c + (x₀ − c) exp(−k t)."""

    def __init__(
        self, dim: int, initial_state: tuple[float, ...], first_time: float, scales: tuple[float, ...]
    ):
        super().__init__()
        self.first_time = first_time
        self.log_rate, self.limit = nn.Parameter(torch.full((dim,), -1.0)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("initial", torch.tensor([initial_state]))
        self.register_buffer("scales", torch.tensor(scales))

    def phases(self):
        return (Phase("fit", (Update("fit", self.squared_error, (self,)),)),)

    def squared_error(self, batch):
        made = self.trajectory(self.initial, batch["times"])[0]
        return mean_over(((made - batch["values"]) / self.scales).square(), batch["seen"])

    def trajectory(self, start, times):
        left = torch.exp(-self.log_rate.exp() * (times - self.first_time).unsqueeze(1))
        limit = self.scales * self.limit
        return limit + (start - limit).unsqueeze(1) * left
