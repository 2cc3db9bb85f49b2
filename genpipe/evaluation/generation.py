"""Cross-entropy of next-token models, in nats a token."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Example, NextToken
from genpipe.evaluation.judge import NotMeasured, Trial


def judge_next_token(trial: Trial) -> dict[str, float]:
    """Nats a token, perplexity, and nats a token under the frequencies of the test tokens themselves.

    A stream is read window by window, from a start mark on; a target after its source, and a tagged text, to its end mark.
    """
    total, number, seen = 0.0, 0, []
    with torch.no_grad():
        for x in trial.data.split(trial.split):
            ids, keep = targets(x, trial.kind, dict(trial.data.facts))
            nats = surprise(trial.recipe, x, ids, trial.data.facts["start"])
            total += float(nats[keep].double().sum())
            number += int(keep.sum())
            seen.append(ids[keep])
    if not number:
        raise NotMeasured(f"nats_per_token: the split {trial.split} has no tokens")
    nats = total / number
    counts = torch.bincount(torch.cat(seen)).double()
    unigram = -(counts / number * (counts.clamp(min=1) / number).log()).sum()
    return {
        "nats_per_token": nats,
        "perplexity": math.exp(min(nats, 700)),
        "nats_per_token_unigram": float(unigram),
    }


def targets(x: Example, kind: str, facts: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The ids that are to be written, int64 [n, time], and which of them count, bool [n, time]."""
    if kind == "stream":
        return x["ids"], x["ids"] != facts["pad"]
    texts, lengths = (x["target"], x["target_lengths"]) if kind == "pairs" else (x["ids"], x["lengths"])
    n, time = texts.shape
    ids, lengths = torch.cat([texts, torch.full((n, 1), facts["pad"])], 1), lengths.unsqueeze(1)
    ids = ids.scatter(1, lengths, facts["end"])
    return ids, torch.arange(time + 1) <= lengths


def surprise(model: NextToken, given: Example, ids: Tensor, start: int) -> Tensor:
    """Nats of each token, [n, time], after those before it."""
    conditions = {name: given[name] for name in model.given}
    state, newest = model.begin(conditions, len(ids)), torch.full((len(ids),), start)
    nats: list[Tensor] = []
    for column in ids.T:
        logits, state = model.next(newest, state)
        nats.append(F.cross_entropy(logits, column, reduction="none"))
        newest = column
    return torch.stack(nats, 1)
