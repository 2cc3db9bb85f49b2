"""Reads a question and its passages as bags of tokens, then writes the answer."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from genpipe.capabilities import NextToken
from genpipe.recipe import Phase, Recipe, Update, mean_over


class Reader(Recipe, NextToken):
    """Writes an answer under the condition of a question and passages."""

    given: ClassVar[tuple[str, ...]] = ("question", "question_lengths", "passages", "passage_lengths")

    def __init__(self, num_tokens: int, start: int, end: int, width: int = 16):
        super().__init__()
        self.start, self.end = start, end
        self.embedding, self.cell = nn.Embedding(num_tokens, width), nn.GRUCell(width, width)
        self.logits = nn.Linear(width, num_tokens)

    def phases(self):
        return (Phase("likelihood", (Update("nll", self.nats, (self,)),)),)

    def nats(self, batch):
        ids = F.pad(batch["answer"], (0, 1)).scatter(1, batch["answer_lengths"].unsqueeze(1), self.end)
        keep = torch.arange(ids.shape[1]) <= batch["answer_lengths"].unsqueeze(1)
        state, newest = self.begin(batch, len(ids)), torch.full((len(ids),), self.start)
        nats = []
        for column in ids.T:
            logits, state = self.next(newest, state)
            nats.append(F.cross_entropy(logits, column, reduction="none"))
            newest = column
        return mean_over(torch.stack(nats, 1), keep)

    def begin(self, given, n):
        question = self._bag(given["question"], given["question_lengths"])
        return (question + self._bag(given["passages"], given["passage_lengths"]).sum(1)).tanh()

    def next(self, ids, state):
        state = self.cell(self.embedding(ids), state)
        return self.logits(state), state

    def _bag(self, ids, lengths):
        keep = torch.arange(ids.shape[-1]) < lengths.unsqueeze(-1)
        return (self.embedding(ids) * keep.unsqueeze(-1)).sum(-2)
