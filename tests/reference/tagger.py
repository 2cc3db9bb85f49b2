"""A tag for each token, from what a recurrent network read up to it."""

import torch
from torch import nn
from torch.nn import functional as F

from genpipe.capabilities import Tags
from genpipe.recipe import Phase, Recipe, Update, mean_over


class Tagger(Recipe, Tags):
    """Tags of texts."""

    def __init__(self, num_tokens: int, num_tags: int, width: int = 16):
        super().__init__()
        self.embedding, self.reader = nn.Embedding(num_tokens, width), nn.GRU(width, width, batch_first=True)
        self.logits = nn.Linear(width, num_tags)

    def phases(self):
        return (Phase("tags", (Update("nll", self.nats, (self,)),)),)

    def nats(self, batch):
        keep = torch.arange(batch["ids"].shape[1]) < batch["lengths"].unsqueeze(1)
        nats = F.cross_entropy(self.tag(batch).transpose(1, 2), batch["tags"], reduction="none")
        return mean_over(nats, keep)

    def tag(self, x):
        return self.logits(self.reader(self.embedding(x["ids"]))[0])
