"""Layer normalisation whose scale and shift follow a condition (Su, 2020, Conditional Layer Normalization, archives/7124)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConditionalNorm(nn.LayerNorm):
    """(x - mean)/√(variance + eps) · (γ + c W_γ) + (β + c W_β): [n, ..., dim] under a condition c, [n, condition_dim].

    W_γ and W_β start at zero, so a trained model that gets a condition starts as it was. Neither has a bias: γ and β are theirs.
    Without `condition_dim` it is torch's LayerNorm. Weight decay on W_γ and W_β pulls the condition away; leave it out for them.
    """

    def __init__(self, dim: int, condition_dim: int | None = None, eps: float = 1e-12) -> None:
        super().__init__(dim, eps)
        self.scale = self.shift = None
        if condition_dim is not None:
            self.scale = nn.Linear(condition_dim, dim, bias=False)
            self.shift = nn.Linear(condition_dim, dim, bias=False)
            nn.init.zeros_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, input: Tensor, condition: Tensor | None = None) -> Tensor:
        """The same shape. Raises ValueError where a condition is missing, or is given to a plain normalisation."""
        if (condition is None) != (self.scale is None):
            raise ValueError(
                "a condition is missing"
                if condition is None
                else "a norm without condition_dim takes no condition"
            )
        if condition is None or self.scale is None or self.shift is None:
            return super().forward(input)
        rows = condition.reshape(len(condition), *[1] * (input.dim() - 2), condition.shape[-1])
        scale, shift = self.weight + self.scale(rows), self.bias + self.shift(rows)
        return torch.addcmul(shift, F.layer_norm(input, self.normalized_shape, eps=self.eps), scale)
