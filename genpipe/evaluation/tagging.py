"""How often the likeliest tag of a token is right, and the words that tags of characters mark."""

import torch

from genpipe.corpus.word_tags import are_of_words
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.words import score_words


def judge_tags(trial: Trial) -> dict[str, float]:
    """The accuracy of tags of all tokens but padding, and that of always naming the most frequent tag.

    Where the tags are B, E, M and S, also precision, recall and F1 of the words.
    """
    made, real, rows = [], [], []
    with torch.no_grad():
        for x in trial.data.split(trial.split):
            keep = torch.arange(x["ids"].shape[1]) < x["lengths"].unsqueeze(1)
            made.append(trial.recipe.tag(x).argmax(-1)[keep])
            real.append(x["tags"][keep])
            rows += x["lengths"].tolist()
    answers, tags = torch.cat(made), torch.cat(real)
    most = torch.bincount(tags).max()
    accuracy = {
        "tag_accuracy": float((answers == tags).double().mean()),
        "tag_accuracy_majority": float(most) / len(tags),
    }
    names = trial.data.facts.get("classes", ())
    if not are_of_words(names):
        return accuracy
    texts = ([[names[i] for i in row.tolist()] for row in each.split(rows)] for each in (answers, tags))
    return accuracy | score_words(zip(*texts, strict=True))
