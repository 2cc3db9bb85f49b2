"""Six small recipes, one for each kind of data: what a person writes to add a model, and nothing else.

Each is registered by a test (`registered`), which puts it into the list of recipes and its block into the list of the laws.
"""

import math
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Embeds, Encodes, Invertible, NextToken, Samples, Tags
from genpipe.models import RECIPES
from genpipe.nn.pixels import scaled
from genpipe.recipe import Loss, Phase, Recipe, Update, mean_over
from tests import tiny


class One(Recipe):
    """A recipe with one loss over all its parameters."""

    def phases(self):
        return (Phase("likelihood", (Update("nll", self.nats, (self,)),)),)

    def nats(self, batch) -> Loss:
        raise NotImplementedError


class ConditionalVAE(One, Samples, Encodes, Decodes):
    """Images under the condition of a class."""

    given: ClassVar[tuple[str, ...]] = ("labels",)

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, latent_dim: int = 4):
        super().__init__()
        self.image_shape, self.num_classes, self.latent_dim = image_shape, num_classes, latent_dim
        dim = math.prod(image_shape)
        self.encoder = nn.Linear(dim + num_classes, 2 * latent_dim)
        self.decoder = nn.Linear(latent_dim + num_classes, dim)

    def nats(self, batch):
        x = {**batch, "images": scaled(batch["images"])}
        mean, log_var = self._posterior(x)
        z = mean + torch.randn_like(mean) * (log_var / 2).exp()
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
        error = (self.decode(z, batch)["images"] - x["images"]).square().flatten(1).sum(1)
        return Loss((error + kl).mean())

    def sample(self, n, given, scale: float = 1.0):
        return self.decode(scale * torch.randn(n, self.latent_dim), given)

    def encode(self, x):
        return self._posterior(x)[0]

    def decode(self, z, given):
        made = self.decoder(torch.cat([z, self._classes(given)], 1)).sigmoid()
        return {"images": made.unflatten(1, self.image_shape)}

    def _posterior(self, x):
        return self.encoder(torch.cat([x["images"].flatten(1), self._classes(x)], 1)).chunk(2, 1)

    def _classes(self, x):
        return F.one_hot(x["labels"], self.num_classes).to(self.encoder.weight.dtype)


class PlaneFlow(One, Invertible, Samples):
    """Affine couplings of two coordinates."""

    def __init__(self, dim: int, hidden_dim: int = 8):
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(1, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, 2)) for _ in range(dim)
        )

    def nats(self, batch):
        return Loss(-self.log_prob(batch).mean())

    def forward(self, x):
        z = list(x["points"].unbind(1))
        log_det = torch.zeros_like(z[0])
        for i, net in enumerate(self.nets):
            scale, shift = net(z[i].unsqueeze(1)).unbind(1)
            z[1 - i] = z[1 - i] * scale.tanh().exp() + shift
            log_det = log_det + scale.tanh()
        return torch.stack(z, 1), log_det

    def inverse(self, z, given):
        x = list(z.unbind(1))
        for i, net in reversed(list(enumerate(self.nets))):
            scale, shift = net(x[i].unsqueeze(1)).unbind(1)
            x[1 - i] = (x[1 - i] - shift) * (-scale.tanh()).exp()
        return {"points": torch.stack(x, 1)}

    def prior_log_prob(self, z, given):
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    def sample(self, n, given):
        return self.inverse(torch.randn(n, 2), given)


class StreamModel(One, NextToken):
    """A recurrent network that reads windows of a stream."""

    def __init__(self, num_tokens: int, start: int, width: int = 16):
        super().__init__()
        self.start = start
        self.embedding, self.cell = nn.Embedding(num_tokens, width), nn.GRUCell(width, width)
        self.logits = nn.Linear(width, num_tokens)

    def nats(self, batch):
        return Loss(torch.stack([F.cross_entropy(*pair) for pair in self._steps(batch["ids"])]).mean())

    def _steps(self, ids):
        state = self.begin({}, len(ids))
        newest = torch.full((len(ids),), self.start)
        for column in ids.T:
            logits, state = self.next(newest, state)
            yield logits, column
            newest = column

    def begin(self, given, n):
        return torch.zeros(n, self.cell.hidden_size, dtype=self.logits.weight.dtype)

    def next(self, ids, state):
        state = self.cell(self.embedding(ids), state)
        return self.logits(state), state


class Translator(StreamModel):
    """Reads a padded source, then writes the target."""

    given: ClassVar[tuple[str, ...]] = ("source", "source_lengths")

    def __init__(self, num_tokens: int, start: int, end: int, width: int = 16):
        super().__init__(num_tokens, start, width)
        self.end = end
        self.reader = nn.GRU(width, width, batch_first=True)

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


class Sentences(One, Embeds):
    """The state of a recurrent network at the last token."""

    def __init__(self, num_tokens: int, num_groups: int, width: int = 16):
        super().__init__()
        self.embedding, self.reader = nn.Embedding(num_tokens, width), nn.GRU(width, width, batch_first=True)
        self.centres = nn.Parameter(torch.randn(num_groups, width))

    def nats(self, batch):
        return Loss(F.cross_entropy(5 * self.embed(batch) @ F.normalize(self.centres).T, batch["groups"]))

    def embed(self, x):
        hidden, _ = self.reader(self.embedding(x["ids"]))
        return F.normalize(hidden[torch.arange(len(hidden)), x["lengths"] - 1])


class Tagger(One, Tags):
    """A tag for each token, from what was read up to it."""

    def __init__(self, num_tokens: int, num_tags: int, width: int = 16):
        super().__init__()
        self.embedding, self.reader = nn.Embedding(num_tokens, width), nn.GRU(width, width, batch_first=True)
        self.logits = nn.Linear(width, num_tags)

    def nats(self, batch):
        keep = torch.arange(batch["ids"].shape[1]) < batch["lengths"].unsqueeze(1)
        nats = F.cross_entropy(self.tag(batch).transpose(1, 2), batch["tags"], reduction="none")
        return mean_over(nats, keep)

    def tag(self, x):
        return self.logits(self.reader(self.embedding(x["ids"]))[0])


SOLVER = {"solvers": {"nll": {"lr": 1e-2}}, "network": {}}
REFERENCE = {
    "conditional_vae": (ConditionalVAE, {**SOLVER, "kind": "images", "how": {"scale": 0.5}}),
    "plane_flow": (PlaneFlow, {**SOLVER, "kind": "points"}),
    "stream_model": (
        StreamModel,
        {**SOLVER, "kind": "stream", "batches": {"time": 8}, "how": {"max_tokens": 9}},
    ),
    "translator": (Translator, {**SOLVER, "kind": "pairs", "how": {"method": "greedy", "max_tokens": 6}}),
    "sentences": (Sentences, {**SOLVER, "kind": "groups", "batches": {"per_group": 2}}),
    "tagger": (Tagger, {**SOLVER, "kind": "tagged"}),
}


@pytest.fixture
def registered(monkeypatch):
    """The reference recipes beside those of genpipe, until the test ends."""
    for name, (make, block) in REFERENCE.items():
        monkeypatch.setitem(RECIPES, name, make)
        monkeypatch.setitem(tiny.BLOCKS, name, block)
