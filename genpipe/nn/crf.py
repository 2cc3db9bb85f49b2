"""A linear-chain conditional random field: tags of a sequence that follow one another (Lafferty, McCallum, Pereira, *Conditional Random Fields*, 2001).

    p(y | x) = exp(s(y, x)) / Z(x),    s = start[y₁] + Σ emission[t, y_t] + Σ transition[y_{t−1}, y_t] + end[y_T]

Rows are padded on the right; what stands behind a row's length has no effect on it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FORBIDDEN = -1e4  # far below any score that is learned, and finite, so that gradients are numbers


class LinearChainCRF(nn.Module):
    """Scores of starts, transitions and ends, which begin at 0; `forbidden` pairs (from, to) of tags never follow one another."""

    forbidden: Tensor

    def __init__(self, num_tags: int, forbidden: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__()
        self.start, self.end = nn.Parameter(torch.zeros(num_tags)), nn.Parameter(torch.zeros(num_tags))
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags))  # [from, to]
        mask = torch.zeros(num_tags, num_tags, dtype=torch.bool)
        for first, second in forbidden:
            mask[first, second] = True
        self.register_buffer("forbidden", mask, persistent=False)

    def log_prob(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """ln p(tags | x) in nats, [n], of emissions, [n, time, tags], tags, int64 [n, time], and lengths, [n], each at least 1."""
        return self.score(emissions, tags, lengths) - self.log_partition(emissions, lengths)

    def score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """s(tags, x), [n]."""
        places = torch.arange(tags.shape[1], device=tags.device)
        of_tokens = emissions.gather(2, tags.unsqueeze(2)).squeeze(2)
        of_tokens = of_tokens.masked_fill(places >= lengths.unsqueeze(1), 0)
        of_steps = self._steps()[tags[:, :-1], tags[:, 1:]]
        of_steps = of_steps.masked_fill(places[1:] >= lengths.unsqueeze(1), 0)
        last = tags.gather(1, lengths.unsqueeze(1) - 1).squeeze(1)
        return self.start[tags[:, 0]] + of_tokens.sum(1) + of_steps.sum(1) + self.end[last]

    def log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """ln Z(x), [n]: the sum over all sequences of tags, forward through time."""
        steps = self._steps()
        forward = self.start + emissions[:, 0]
        for time in range(1, emissions.shape[1]):
            further = (forward.unsqueeze(2) + steps).logsumexp(1) + emissions[:, time]
            forward = torch.where((time < lengths).unsqueeze(1), further, forward)
        return (forward + self.end).logsumexp(1)

    def max_marginals(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """The score of the best sequence of tags through each tag of each token, float64 [n, time, tags].

        Where one sequence is best, its tags have the largest values: the argmax over tags is the Viterbi path. Double precision,
        since sums of two directions are compared. Values behind a row's length have no meaning.
        """
        emissions, steps = emissions.double(), self._steps().double()
        time = emissions.shape[1]
        forward = [self.start.double() + emissions[:, 0]]
        for t in range(1, time):
            forward.append((forward[-1].unsqueeze(2) + steps).amax(1) + emissions[:, t])
        backward = [self.end.double().expand(len(emissions), -1)]
        for t in range(time - 2, -1, -1):
            further = (steps + (emissions[:, t + 1] + backward[-1]).unsqueeze(1)).amax(2)
            # a row ends at its own last token
            backward.append(torch.where((t + 1 < lengths).unsqueeze(1), further, self.end.double()))
        return torch.stack(forward, 1) + torch.stack(backward[::-1], 1)

    def _steps(self) -> Tensor:
        return self.transitions.masked_fill(self.forbidden, FORBIDDEN)
