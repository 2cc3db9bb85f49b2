"""NICE of zuko, from its parts: the class of that name has affine couplings."""

import torch
from flow_common import Architecture, Flow, Logistic, fill, interleaved, main, numbers_of
from torch import Size, Tensor
from torch.distributions import AffineTransform, Transform
from zuko.flows import UnconditionalDistribution, UnconditionalTransform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import Flow as ZukoFlow
from zuko.transforms import AdditiveTransform, DependentTransform


def scaled(log_scale: Tensor) -> Transform:
    """A scale for each dimension."""
    return DependentTransform(AffineTransform(0.0, log_scale.exp()), 1)


def make(a: Architecture) -> Flow:
    """The flow with the numbers of all."""
    numbers = numbers_of(a)
    couplings = []
    for i, layers in enumerate(numbers.layers):
        coupling = GeneralCouplingTransform(
            a.dim,
            mask=(torch.arange(a.dim) + i) % 2 == 0,  # those that stay
            univariate=AdditiveTransform,
            shapes=[Size()],
            hidden_features=[a.hidden_dim] * a.num_hidden,
        )
        fill(coupling.hyper, layers)
        couplings.append(coupling)
    scale = UnconditionalTransform(scaled, interleaved(numbers.log_scale), buffer=True)
    prior = UnconditionalDistribution(lambda _: Logistic(a.dim), torch.zeros(1), buffer=True)
    flow = ZukoFlow([*couplings, scale], prior).eval()
    return Flow(lambda x: flow().log_prob(x), lambda n: flow().sample(Size([n])))


main(make)
