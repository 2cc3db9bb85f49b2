"""How well a model knows hidden tokens of texts, beside their frequencies and their neighbours."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from genpipe.capabilities import Example
from genpipe.data.loader import derived_seed
from genpipe.evaluation.bigrams import Bigrams
from genpipe.evaluation.judge import NotMeasured, Trial

LEAST = 1e-30  # a probability; 0 has no logarithm


def judge_filling(trial: Trial) -> dict[str, float]:
    """Accuracy, and bits a token, of the tokens that a training would hide, each of them hidden from model and baselines alike.

    The baselines are the most frequent token, and the posterior of a Markov chain of the training texts given all that is to be seen.
    """
    facts = trial.data.facts
    chain = Bigrams(trial.data.split("train"), facts["pad"], facts["num_tokens"])
    unigram = torch.from_numpy(chain.unigram)
    total = torch.zeros(6, dtype=torch.float64)
    number = 0
    for x, hidden in hidden_texts(trial):
        right = x["ids"][hidden]
        with torch.no_grad():
            own = trial.recipe.fill(x, hidden).double().softmax(-1)
        found = [own, unigram.expand_as(own), chain.posterior(x["ids"], hidden)]
        total += torch.stack([value for p in found for value in scores(p, right)])
        number += len(right)
    if not number:
        raise NotMeasured(f"masked_accuracy: no token of the split {trial.split} is hidden")
    names = [
        f"{name}{of}"
        for of in ("", "_unigram", "_bigram")
        for name in ("masked_accuracy", "bits_per_masked_token")
    ]
    return dict(zip(names, (total / number).tolist(), strict=True))


def hidden_texts(trial: Trial) -> Iterator[tuple[Example, Tensor]]:
    """The texts of a split with what is hidden of them, bool [n, time], a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        for number, x in enumerate(trial.data.split(trial.split)):
            torch.manual_seed(derived_seed(trial.seed, "hidden", number))
            yield x, trial.recipe.draw_hidden(x)


def scores(p: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """How many of the right tokens, int64 [tokens], are the likeliest of p, [tokens, num_tokens], and their bits in all."""
    of_right = p.gather(1, right.unsqueeze(1)).squeeze(1)
    return (p.argmax(1) == right).double().sum(), -of_right.clamp(min=LEAST).log().sum() / math.log(2)
