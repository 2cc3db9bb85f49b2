"""NICE of nflows, from its additive couplings."""

from flow_common import Architecture, Flow, Logistic, interleaved, main, mlp, numbers_of
from nflows.distributions.base import Distribution
from nflows.flows.base import Flow as NFlow
from nflows.transforms.base import CompositeTransform
from nflows.transforms.coupling import AdditiveCouplingTransform
from nflows.transforms.standard import PointwiseAffineTransform
from torch import Size, Tensor, arange, nn


class Prior(Distribution):
    """The logistic prior in its interface."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.logistic = Logistic(dim)

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return self.logistic.log_prob(inputs)

    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        return self.logistic.rsample(Size([num_samples]))


class Network(nn.Module):
    """The network of a coupling: nflows also gives it a context."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.layers = mlp(layers)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """[n, kept] → [n, moved]."""
        return self.layers(x)


def make(a: Architecture) -> Flow:
    """The flow with the numbers of all."""
    numbers = numbers_of(a)
    couplings = [
        # those with a 1 are moved
        AdditiveCouplingTransform((arange(a.dim) + i) % 2, lambda *_, layers=layers: Network(layers))
        for i, layers in enumerate(numbers.layers)
    ]
    scale = PointwiseAffineTransform(shift=0.0, scale=interleaved(numbers.log_scale).exp())
    flow = NFlow(CompositeTransform([*couplings, scale]), Prior(a.dim)).eval()
    return Flow(flow.log_prob, flow.sample)


main(make)
