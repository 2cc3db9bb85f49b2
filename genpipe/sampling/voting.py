"""One answer from several passages: their votes as the steps of a beam search, and answers that are parts of a passage.

Su, archives/7115: a beam is shared by all passages of a question.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Example, State, Votes
from genpipe.nn.votes import scores
from genpipe.sampling.beams import Step
from genpipe.sampling.marks import Marks, without


class Reading(NamedTuple):
    """Passages, int64 [n, passages, time], which of their places are text, and where an answer may go on, both bool."""

    passages: Tensor
    is_text: Tensor
    goes_on: Tensor

    @classmethod
    def begun(cls, given: Example) -> "Reading":
        """Before the first token: an answer may begin anywhere."""
        passages, lengths = given["passages"], given["passage_lengths"]
        is_text = torch.arange(passages.shape[-1]) < lengths.unsqueeze(-1)
        return cls(passages, is_text, is_text)

    def after(self, newest: Tensor) -> "Reading":
        """After the newest token of each answer, [n]: it goes on one place behind each of its occurrences."""
        ends = self.goes_on & (self.passages == newest[:, None, None])
        return self._replace(goes_on=F.pad(ends, (1, 0))[..., :-1] & self.is_text)

    def allowed(self, votes: Tensor, num_tokens: int, end: int) -> Tensor:
        """The tokens with which an answer stays a part of a passage that has a vote, and the end mark, bool [n, num_tokens]."""
        counted = (self.goes_on & votes.unsqueeze(-1)).flatten(1).int()
        found = torch.zeros(len(counted), num_tokens, dtype=torch.int)
        found = found.scatter_add(1, self.passages.flatten(1), counted)
        found[:, end] = 1
        return found > 0


def voted(model: Votes, given: Example, marks: Marks, extractive: bool) -> tuple[Step, State]:
    """The step of a voted beam, and the state before its first token, for all rows of `given`.

    `extractive`: the probability of a token with which the answer would be no part of a passage is 0 before the vote, and the
    others stay as they are.
    """

    def step(newest: Tensor, state: State, time: int) -> tuple[Tensor, State]:
        inner, reading = state
        logits, votes, inner = model.next_of_each(newest, inner)
        shares = without(logits, marks).double().softmax(-1)
        if reading is not None:
            reading = reading.after(newest) if time else reading
            shares = shares * reading.allowed(votes, shares.shape[-1], marks.end).unsqueeze(1)
        return scores(shares, votes, marks.end).log(), (inner, reading)

    start = model.begin(given, len(given["passages"]))
    return step, (start, Reading.begun(given) if extractive else None)
