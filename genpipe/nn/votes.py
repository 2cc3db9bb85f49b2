"""How several passages vote on the next token of one answer (Su, archives/7115).

A passage that would begin with the end mark has no answer and loses its vote. The score of token v is
Σ p(v)² / (1 + Σ p(v)) over the passages that have a vote: with one passage it ranks tokens as p does, and a passage that is
sure counts more than several that are not. A score is no probability: scores of one question alone can be compared.
"""

import torch
from torch import Tensor


def has_vote(logits: Tensor, is_there: Tensor, end: int) -> Tensor:
    """Which passages have an answer, bool [n, passages], by their logits of the first token, [n, passages, num_tokens].

    `is_there`, bool [n, passages], is false for a passage that only fills the row.
    """
    return is_there & (logits.argmax(-1) != end)


def scores(shares: Tensor, votes: Tensor, end: int) -> Tensor:
    """The scores of the next token, [n, num_tokens], by probabilities, [n, passages, num_tokens], and votes, bool [n, passages].

    Where no passage has a vote, the end mark scores 1 and all else 0: there is no answer.
    """
    counted = shares * votes.unsqueeze(-1)
    found = counted.square().sum(1) / (1 + counted.sum(1))
    nothing = torch.zeros_like(found[:1])
    nothing[:, end] = 1
    return torch.where(votes.any(1, keepdim=True), found, nothing)
