"""How often the likeliest class is right."""

import torch

from genpipe.evaluation.judge import Trial
from genpipe.sampling.draw import in_chunks
from genpipe.sampling.panels import as_values


def judge_classes(trial: Trial) -> dict[str, float]:
    """Accuracy, and that of always naming the most frequent class."""
    right, labels = [], []
    for x in trial.data.split(trial.split):
        right.append(in_chunks(trial.recipe.classify, as_values(x)).argmax(-1) == x["labels"])
        labels.append(x["labels"])
    most = torch.bincount(torch.cat(labels)).max()
    number = sum(map(len, labels))
    return {"accuracy": float(torch.cat(right).double().mean()), "accuracy_majority": float(most) / number}
