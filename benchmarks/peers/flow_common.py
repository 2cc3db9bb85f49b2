"""What every flow that is measured has in common: the architecture, its numbers, the prior, and how a call is timed."""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

WARM_UP = 3  # calls before those that count


class Architecture(NamedTuple):
    """NICE: additive couplings of even and odd numbers in turn, each by a ReLU network, then a scale a number."""

    dim: int
    num_couplings: int
    hidden_dim: int
    num_hidden: int

    @staticmethod
    def parse(text: str) -> "Architecture":
        """784x4x500x3: dimensions, couplings, units of a hidden layer, hidden layers."""
        return Architecture(*map(int, text.split("x")))


class Flow(NamedTuple):
    """Of points, [n, dim]: log-densities, [n], and samples, both without gradients."""

    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]


class Numbers(NamedTuple):
    """The parameters of every library's flow: weights and biases by coupling and layer, and log-scales, even dimensions first."""

    layers: list[list[tuple[Tensor, Tensor]]]
    log_scale: Tensor


def numbers_of(a: Architecture) -> Numbers:
    """Pseudo-random ones, the same for all libraries."""
    rng = np.random.default_rng(0)

    def tensor(*shape: int, size: float) -> Tensor:
        return torch.from_numpy((size * rng.standard_normal(shape)).astype(np.float32))

    layers = []
    for i in range(a.num_couplings):
        kept = (a.dim + 1 - i % 2) // 2
        sizes = [kept, *[a.hidden_dim] * a.num_hidden, a.dim - kept]
        pairs = itertools.pairwise(sizes)
        layers.append([(tensor(y, x, size=x**-0.5), tensor(y, size=0.1)) for x, y in pairs])
    return Numbers(layers, tensor(a.dim, size=0.3))


def points_of(a: Architecture, n: int) -> Tensor:
    """[n, dim] in [0, 1], the same for all libraries."""
    return torch.from_numpy(np.random.default_rng(1).random((n, a.dim), dtype=np.float32))


def fill(network: nn.Module, layers: list[tuple[Tensor, Tensor]], sign: float = 1.0) -> None:
    """Give the linear layers of a network, also those of a library's own class, these numbers; the last one times `sign`."""
    linears: list[Any] = [part for part in network.modules() if hasattr(part, "weight")]
    assert len(linears) == len(layers)
    with torch.no_grad():
        for linear, (weight, bias) in zip(linears, layers, strict=True):
            factor = sign if linear is linears[-1] else 1.0
            linear.weight.copy_(factor * weight)
            linear.bias.copy_(factor * bias)


def mlp(layers: list[tuple[Tensor, Tensor]], sign: float = 1.0) -> nn.Sequential:
    """A ReLU network with these numbers."""
    parts = [
        part for weight, _ in layers for part in (nn.Linear(weight.shape[1], weight.shape[0]), nn.ReLU())
    ]
    network = nn.Sequential(*parts[:-1])
    fill(network, layers, sign)
    return network


def interleaved(halves: Tensor) -> Tensor:
    """Numbers with the even dimensions first, [dim], in the order of the dimensions."""
    made = torch.empty_like(halves)
    made[::2], made[1::2] = halves.split([(len(halves) + 1) // 2, len(halves) // 2])
    return made


class Logistic(torch.distributions.Distribution):
    """Independent standard logistic numbers, the prior of NICE."""

    arg_constraints: dict = {}  # noqa: RUF012 - as torch has it

    def __init__(self, dim: int) -> None:
        super().__init__(event_shape=torch.Size([dim]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """[n] of [n, dim]."""
        return -(nn.functional.softplus(value) + nn.functional.softplus(-value)).sum(-1)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """[*sample_shape, dim]."""
        return torch.logit(torch.rand(*sample_shape, *self.event_shape).clamp(1e-6, 1 - 1e-6))


def main(make: Callable[[Architecture], Flow]) -> None:
    """Time one operation of a flow, or write its log-densities; the last line of the output is JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("architecture", type=Architecture.parse)
    parser.add_argument("operation", choices=["log_prob", "sample"])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument(
        "--write", type=Path, help="log-densities of these rows, .npy, in the place of a time"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    flow, x = make(given.architecture), points_of(given.architecture, given.rows)
    with torch.no_grad():
        if given.write:
            np.save(given.write, flow.log_prob(x).numpy())
            return
        call = (
            (lambda: flow.log_prob(x)) if given.operation == "log_prob" else (lambda: flow.sample(given.rows))
        )
        print(json.dumps({"seconds": seconds(call, given.calls)}))


def seconds(call: Callable[[], Tensor], calls: int) -> float:
    """CPU seconds of a call of this thread, the median; the results are numbers."""
    taken = []
    for _ in range(WARM_UP + calls):
        begun = time.thread_time()
        result = call()
        taken.append(time.thread_time() - begun)
        assert math.isfinite(float(result.sum()))
    return float(np.median(taken[WARM_UP:]))
