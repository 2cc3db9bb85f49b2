"""How the weights of a transformer begin."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from genpipe.nn.conditional_norm import ConditionalNorm

Start = Literal["bert", "scaled"]
DEVIATION = 0.02  # of all weights, as in BERT: right for a width of 768
OF_EMBEDDINGS = 0.05


def as_bert(network: nn.Module) -> None:
    """Weights from N(0, 0.02²), whatever the width; biases of 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=DEVIATION)
    _common(network)


def scaled(network: nn.Module) -> None:
    """Weights from N(0, 1/inputs), embeddings from N(0, 0.05²), positions as sines and cosines; biases of 0.

    In a narrow network weights of 0.02 make all logits of attention nearly equal, and random positions must first be learnt to tell
    neighbours: a masked language model of width 128 then stays for hundreds of steps at the frequencies of tokens.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=OF_EMBEDDINGS)
            if name.endswith("positions"):
                with torch.no_grad():
                    module.weight.copy_(OF_EMBEDDINGS * waves(*module.weight.shape))
    _common(network)


def waves(length: int, dim: int) -> Tensor:
    """sin(i ω) and cos(i ω) of positions i, [length, dim], ω from 1 down to 1/10,000 (Vaswani et al., 2017, arXiv:1706.03762)."""
    frequencies = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(length).double().unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :dim].float()


def _common(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, ConditionalNorm) and module.scale is not None and module.shift is not None:
            nn.init.zeros_(module.scale.weight)
            nn.init.zeros_(module.shift.weight)
    bottleneck = getattr(network, "condition", None)
    if bottleneck is not None:
        # Not zeros: behind maps that start at zero neither would ever move.
        nn.init.xavier_uniform_(bottleneck.weight)


STARTS: Mapping[Start, Callable[[nn.Module], None]] = {"bert": as_bert, "scaled": scaled}
