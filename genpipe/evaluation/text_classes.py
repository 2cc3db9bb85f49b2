"""What a classifier of texts is compared with: the class by the counts of tokens alone."""

import numpy as np

from genpipe.evaluation.conditions import labels_of, texts_of
from genpipe.evaluation.judge import Trial
from genpipe.evaluation.ngrams import NaiveBayes


def judge_bags(trial: Trial) -> dict[str, float]:
    """The accuracy of naive Bayes over the tokens of the training texts, on the texts of the split."""
    facts = trial.data.facts
    labels = labels_of(trial.data, "train", "labels")
    bayes = NaiveBayes(texts_of(trial.data, "train"), labels, facts["num_classes"], facts["num_tokens"])
    found = bayes.classify(texts_of(trial.data, trial.split))
    return {"accuracy_naive_bayes": float(np.mean(found == labels_of(trial.data, trial.split, "labels")))}
