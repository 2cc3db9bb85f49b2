"""The state of a recurrent network at the last token, learned by which group a text is of."""

import torch
from torch import nn
from torch.nn import functional as F

from genpipe.capabilities import Embeds
from genpipe.recipe import Loss, Phase, Recipe, Update


class Sentences(Recipe, Embeds):
    """Features of texts."""

    def __init__(self, num_tokens: int, num_groups: int, width: int = 16):
        super().__init__()
        self.embedding, self.reader = nn.Embedding(num_tokens, width), nn.GRU(width, width, batch_first=True)
        self.centres = nn.Parameter(torch.randn(num_groups, width))

    def phases(self):
        return (Phase("classes", (Update("nll", self.nats, (self,)),)),)

    def nats(self, batch):
        return Loss(F.cross_entropy(5 * self.embed(batch) @ F.normalize(self.centres).T, batch["groups"]))

    def embed(self, x):
        hidden, _ = self.reader(self.embedding(x["ids"]))
        return F.normalize(hidden[torch.arange(len(hidden)), x["lengths"] - 1])
