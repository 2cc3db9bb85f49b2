"""How often the likeliest tag of a token is right."""

import torch

from genpipe.evaluation.judge import Trial


def judge_tags(trial: Trial) -> dict[str, float]:
    """The accuracy of tags of all tokens but padding, and that of always naming the most frequent tag."""
    made, real = [], []
    with torch.no_grad():
        for x in trial.data.split(trial.split):
            keep = torch.arange(x["ids"].shape[1]) < x["lengths"].unsqueeze(1)
            made.append(trial.recipe.tag(x).argmax(-1)[keep])
            real.append(x["tags"][keep])
    answers, tags = torch.cat(made), torch.cat(real)
    most = torch.bincount(tags).max()
    return {
        "tag_accuracy": float((answers == tags).double().mean()),
        "tag_accuracy_majority": float(most) / len(tags),
    }
