"""Layer normalisation whose scale and shift a small network makes of a vector (Su, 2018, archives/5861).

After self-modulated batch normalisation (Chen, Lucic, Houlsby, Gelly, 2018, arXiv:1810.01365), with the statistics of a layer.
"""

from torch import Tensor, nn
from torch.nn import functional as F

Modulation = tuple[Tensor, Tensor]  # γ and β, [n, dim] each


class SelfModulatedNorm(nn.Module):
    """(x − mean)/√(variance + ε) · (1 + γ(c)) + β(c): [n, time, dim] under c, [n, condition_dim].

    γ and β have a hidden layer of `hidden_dim` units each. Their last layers start at zero, so it starts as a plain normalisation.
    """

    def __init__(self, dim: int, condition_dim: int, hidden_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.scale = _network(condition_dim, hidden_dim, dim)
        self.shift = _network(condition_dim, hidden_dim, dim)

    def modulation(self, condition: Tensor) -> Modulation:
        """γ and β of a condition: a decoder needs them once a text."""
        return self.scale(condition), self.shift(condition)

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """The same shape."""
        scale, shift = (part.unsqueeze(1) for part in modulation)
        return F.layer_norm(x, (self.dim,), eps=self.eps) * (1 + scale) + shift


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), last)
