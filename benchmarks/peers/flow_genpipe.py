"""The flows of genpipe, by the name of their recipe; run by the Python of the project."""

import sys
from collections.abc import Callable, Mapping

import torch
from flow_common import Architecture, Flow, fill, main, numbers_of

from genpipe.models.nice import NICE


def nice(a: Architecture) -> Flow:
    """The additive one with the numbers of all; images of one row."""
    numbers = numbers_of(a)
    model = NICE((1, 1, a.dim), a.num_couplings, a.hidden_dim, a.num_hidden).eval()
    for coupling, layers in zip(model.couplings, numbers.layers, strict=True):
        fill(coupling, layers)
    with torch.no_grad():
        model.log_scale.copy_(numbers.log_scale)
    return Flow(
        lambda x: model.log_prob({"images": x.view(-1, 1, 1, a.dim)}),
        lambda n: model.sample(n, {}, temperature=1.0)["images"],
    )


# a flow of another recipe is a row here
MODELS: Mapping[str, Callable[[Architecture], Flow]] = {"nice": nice}

main(MODELS[sys.argv.pop(1)])
