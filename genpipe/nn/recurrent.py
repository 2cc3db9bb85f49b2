"""LSTMs over texts that are padded on the right: padding changes no state of a token.

Long Short-Term Memory (Hochreiter, Schmidhuber, 1997); the gate that forgets starts open (Jozefowicz, Zaremba, Sutskever, 2015).
"""

import torch
from torch import Tensor, nn

from genpipe.nn import portable

LSTMState = tuple[Tensor, Tensor]  # the output and the cell, [n, dim] each


class LSTM(nn.Module):
    """One layer in one direction: [n, time, inputs] → [n, time, dim]."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.cells = nn.LSTM(inputs, dim, batch_first=True)
        # torch adds up two biases of each gate; the gates are: in, forget, new, out
        for name, value in (("bias_ih_l0", 1.0), ("bias_hh_l0", 0.0)):
            nn.init.constant_(self.cells.get_parameter(name)[dim : 2 * dim], value)

    def forward(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """Outputs and the last state, from `state` on, or from zeros."""
        before = None if state is None else (state[0].unsqueeze(0), state[1].unsqueeze(0))
        states, (output, cell) = self._run(x, before)
        return states, (output[0], cell[0])

    def _run(self, x: Tensor, before: LSTMState | None) -> tuple[Tensor, LSTMState]:
        """oneDNN's kernel takes two thirds of the time, but whether its bits are the same on all processors is not known."""
        if not portable.is_portable():
            return self.cells(x, before)
        is_enabled = torch.backends.mkldnn.enabled
        torch.backends.mkldnn.enabled = False
        try:
            return self.cells(x, before)
        finally:
            torch.backends.mkldnn.enabled = is_enabled


class BiLSTM(nn.Module):
    """An LSTM of half the width in each direction: [n, time, dim] → [n, time, dim]; `dim` is even."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.onward, self.back = LSTM(dim, dim // 2), LSTM(dim, dim // 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Of texts of these lengths, int64 [n]; what stands in places of padding means nothing."""
        onward, _ = self.onward(x)
        back, _ = self.back(turned(x, lengths))
        return torch.cat([onward, turned(back, lengths)], -1)


def turned(x: Tensor, lengths: Tensor) -> Tensor:
    """Each text, [n, time, ...], from its last token to its first, of its length, int64 [n]; padding stays where it is.

    >>> turned(torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0]]), torch.tensor([3, 1])).tolist()
    [[3, 2, 1, 0], [4, 0, 0, 0]]
    """
    places = torch.arange(x.shape[1], device=x.device)
    ends = lengths.unsqueeze(1)
    places = torch.where(places < ends, ends - 1 - places, places)
    return x.gather(1, places.view(*places.shape, *[1] * (x.dim() - 2)).expand(x.shape))
