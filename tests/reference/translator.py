"""Reads a padded source, then writes the target: two recurrent networks.

Sutskever, Vinyals and Le, Sequence to Sequence Learning with Neural Networks, 2014, arXiv:1409.3215.
"""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from genpipe.capabilities import NextToken
from genpipe.recipe import Phase, Recipe, Update, mean_over


class Translator(Recipe, NextToken):
    """Writes a target under the condition of its source."""

    given: ClassVar[tuple[str, ...]] = ("source", "source_lengths")

    def __init__(self, num_tokens: int, start: int, end: int, width: int = 16):
        super().__init__()
        self.start, self.end = start, end
        self.embedding, self.cell = nn.Embedding(num_tokens, width), nn.GRUCell(width, width)
        self.reader, self.logits = nn.GRU(width, width, batch_first=True), nn.Linear(width, num_tokens)

    def phases(self):
        return (Phase("likelihood", (Update("nll", self.nats, (self,)),)),)

    def nats(self, batch):
        ids = F.pad(batch["target"], (0, 1)).scatter(1, batch["target_lengths"].unsqueeze(1), self.end)
        keep = torch.arange(ids.shape[1]) <= batch["target_lengths"].unsqueeze(1)
        state, newest = self.begin(batch, len(ids)), torch.full((len(ids),), self.start)
        nats = []
        for column in ids.T:
            logits, state = self.next(newest, state)
            nats.append(F.cross_entropy(logits, column, reduction="none"))
            newest = column
        return mean_over(torch.stack(nats, 1), keep)

    def begin(self, given, n):
        hidden, _ = self.reader(self.embedding(given["source"]))
        return hidden[torch.arange(n), given["source_lengths"] - 1]

    def next(self, ids, state):
        state = self.cell(self.embedding(ids), state)
        return self.logits(state), state
