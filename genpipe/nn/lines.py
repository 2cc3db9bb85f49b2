"""Which characters follow each other in a line of verse, and their tones: what a search for whole lines weighs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LineModel(nn.Module):
    """A log-bilinear n-gram model (Mnih and Hinton, Three New Graphical Models for Statistical Language Modelling, 2007).

    The logits of a character are the products of its vector with a sum of the vectors of the `order` characters before it, each
    under a matrix of its own place, and a bias. Beside it, the frequencies of characters and the tone of each: three parts that
    share no parameter.
    """

    def __init__(self, num_tokens: int, dim: int, order: int, start: int) -> None:
        super().__init__()
        self.order, self.start = order, start
        self.before = nn.Embedding(num_tokens, dim)
        self.places = nn.Parameter(torch.randn(order, dim, dim) / (order * dim) ** 0.5)
        self.after = nn.Linear(dim, num_tokens)
        self.frequency = nn.Parameter(torch.zeros(num_tokens))
        self.level = nn.Parameter(torch.zeros(num_tokens))

    def histories(self, ids: Tensor) -> Tensor:
        """The characters before each place of lines, [n, time] → [n, time, order], the nearest one last; start marks before a line."""
        return F.pad(ids, (self.order, 0), value=self.start)[:, :-1].unfold(1, self.order, 1)

    def follow(self, history: Tensor) -> Tensor:
        """Log-probabilities of the character after a history, [..., order] → [..., num_tokens]."""
        mixed = torch.einsum("...kd,kde->...e", self.before(history), self.places)
        return self.after(mixed).log_softmax(-1)

    def frequencies(self) -> Tensor:
        """Log-probabilities of characters wherever they stand, [num_tokens]."""
        return self.frequency.log_softmax(-1)

    def nats(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The surprise at each character of lines, [n, time], in nats: after those before it, and by frequency alone."""
        following = self.follow(self.histories(ids))
        alone = self.frequencies().expand_as(following)
        places = ids.unsqueeze(-1)
        return -following.gather(-1, places).squeeze(-1), -alone.gather(-1, places).squeeze(-1)

    def rules(self, upper: Tensor, lower: Tensor, lengths: Tensor) -> Tensor:
        """The surprise at what regulated verse asks of tones, in nats, [n, time]; 0 where it asks nothing.

        Lines of equal lengths, [n, time]. At the 2nd, 4th and 6th place they have opposite tones; the upper line ends oblique, the
        lower one level. `level` is the logit of the level tone, so a character that is found on both sides stays near 0.
        """
        a, b = self.level[upper], self.level[lower]
        opposite = -torch.logaddexp(F.logsigmoid(a) + F.logsigmoid(-b), F.logsigmoid(-a) + F.logsigmoid(b))
        ends = -F.logsigmoid(-a) - F.logsigmoid(b)
        place = torch.arange(upper.shape[1], device=upper.device)
        is_last = place == lengths.unsqueeze(1) - 1
        nothing = torch.zeros_like(ends)
        return torch.where(place % 2 == 1, opposite, nothing) + torch.where(is_last, ends, nothing)
