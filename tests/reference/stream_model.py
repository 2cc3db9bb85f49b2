"""A recurrent network that reads windows of a stream of documents."""

import torch
from torch import nn
from torch.nn import functional as F

from genpipe.capabilities import NextToken
from genpipe.recipe import Loss, Phase, Recipe, Update


class StreamModel(Recipe, NextToken):
    """Writes what follows."""

    def __init__(self, num_tokens: int, start: int, width: int = 16):
        super().__init__()
        self.start = start
        self.embedding, self.cell = nn.Embedding(num_tokens, width), nn.GRUCell(width, width)
        self.logits = nn.Linear(width, num_tokens)

    def phases(self):
        return (Phase("likelihood", (Update("nll", self.nats, (self,)),)),)

    def nats(self, batch):
        state, newest = self.begin({}, len(batch["ids"])), torch.full((len(batch["ids"]),), self.start)
        nats = []
        for column in batch["ids"].T:
            logits, state = self.next(newest, state)
            nats.append(F.cross_entropy(logits, column))
            newest = column
        return Loss(torch.stack(nats).mean())

    def begin(self, given, n):
        return torch.zeros(n, self.cell.hidden_size, dtype=self.logits.weight.dtype)

    def next(self, ids, state):
        state = self.cell(self.embedding(ids), state)
        return self.logits(state), state
