"""A recipe that stretches the contract: two players, two phases, batch statistics, dropout, a replay buffer, integers."""

import typing

import numpy as np
import torch
from torch import nn

from genpipe.params.training import Training
from genpipe.recipe import Loss, Phase, Recipe, Update, mean_over
from genpipe.training.logical import Alone, Exchange
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer
from genpipe.training.weight_transforms import normalise


class Points:
    """A cloud of points in the plane."""

    facts: typing.ClassVar[dict] = {}

    def train_batch(self, seed, step, batch_size):
        rng = np.random.Generator(np.random.Philox([seed, step]))
        return {"points": torch.from_numpy(rng.normal(2, 1, (batch_size, 2)).astype(np.float32))}


class TwoPlayers(Recipe):
    """A Wasserstein GAN with gradient penalty (double backward), after a phase that only fits the generator's mean."""

    sliced = ("replay",)

    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1, bias=False))
        self.generator = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)
        )
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("replay", torch.zeros(24, 2))

    def phases(self):
        return (
            Phase(
                "warm", (Update("fit", self.fit_mean, (self.generator,)),), share=0.4, prepare=self.find_mean
            ),
            Phase(
                "play",
                (
                    Update("critic", self.critic_loss, (self.critic,)),
                    Update("generator", self.generator_loss, (self.generator,), every=2),
                ),
                share=0.6,
            ),
        )

    def find_mean(self, batches):
        self.mean.copy_(next(iter(batches))["points"].mean(0))

    def fit_mean(self, batch):
        return Loss((self._made(batch).mean(0) - self.mean).square().sum())

    def critic_loss(self, batch):
        made = self._made(batch).detach().requires_grad_()
        score = self.critic(made)
        slope = torch.autograd.grad(score.sum(), made, create_graph=True)[0]
        penalty = (slope.norm(dim=1) - 1).square().mean()
        seen_before = self.critic(batch["replay"].clone()).mean()
        with torch.no_grad():
            batch["replay"].lerp_(made[: len(batch["replay"])].to(batch["replay"]), 0.5)
        value = 0.5 * (score.mean() + seen_before) - self.critic(batch["points"]).mean() + penalty
        return Loss(value, {"penalty": penalty.detach()})

    def generator_loss(self, batch):
        return Loss(-self.critic(self._made(batch)).mean())

    def _made(self, batch):
        return self.generator(torch.randn(len(batch["points"]), 3))


def training(**changes) -> Training:
    """How the toy is trained."""
    solvers = {"fit": {"lr": 1e-2}, "critic": {"lr": 1e-2}, "generator": {"lr": 1e-2, "optimiser": "rmsprop"}}
    given = {"batch_size": 24, "steps": 10, "checkpoint_every": 2, "solvers": solvers}
    return Training.model_validate({**given, **changes})


class Sentences:
    """Right-padded sentences of 0 to 5 tokens."""

    facts: typing.ClassVar[dict] = {}

    def train_batch(self, seed, step, batch_size):
        rng = np.random.Generator(np.random.Philox([seed, step]))
        lengths = rng.integers(0, 6, batch_size)
        lengths[0] = 5
        return {
            "ids": torch.from_numpy(rng.integers(0, 7, (batch_size, 5))),
            "lengths": torch.from_numpy(lengths),
        }


class Tokens(Recipe):
    """Losses over ragged tokens: one draws nothing; one draws dropout, from the stream of the other."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7)
        self.noisy = nn.Linear(4, 7)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("before", torch.zeros(7, 4))

    def phases(self):
        nll = Update("nll", self.nll, (self.embedding, self.head), after=self.keep)
        return (Phase("fit", (nll, Update("noise", self.noise, (self.noisy,), noise="nll"))),)

    def nll(self, batch):
        keep = torch.arange(5) < batch["lengths"].unsqueeze(1)
        logits = self.head(self.embedding(batch["ids"]))
        values = nn.functional.cross_entropy(logits.transpose(1, 2), batch["ids"], reduction="none")
        loss = mean_over(values, keep, hits=(logits.argmax(-1) == batch["ids"]).float())
        self.seen.lerp_(mean_over(batch["ids"].float(), keep).value, 0.5)
        return loss

    def noise(self, batch):
        keep = torch.arange(5) < batch["lengths"].unsqueeze(1)
        hidden = nn.functional.dropout(self.embedding(batch["ids"]).detach(), 0.5)
        return mean_over(self.noisy(hidden).square().mean(-1), keep)

    def keep(self):
        self.before.copy_(self.head.weight.detach())


def token_trainer(run: Run, exchange: Exchange | None = None, **changes) -> Trainer:
    """A trainer of the toy on sentences."""
    torch.manual_seed(0)
    solvers = {"nll": {"lr": 0.1}, "noise": {"lr": 0.1}}
    return Trainer(
        Tokens(), Sentences(), training(**{"solvers": solvers, **changes}), 0, exchange or Alone(), run
    )


def trainer(run: Run, exchange: Exchange | None = None, **changes) -> Trainer:
    """A trainer of the toy; every process of a training makes the same."""
    torch.manual_seed(0)
    params = training(**changes)
    recipe = TwoPlayers()
    normalise(recipe, params.normalisations)
    return Trainer(recipe, Points(), params, 0, exchange or Alone(), run)
