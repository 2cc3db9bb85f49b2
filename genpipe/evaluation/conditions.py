"""Whether a model that writes under classes follows them, and how well it writes."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from genpipe.capabilities import LogProb
from genpipe.data.loader import Data
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.evaluation.ngrams import Bigrams, Ids, NaiveBayes
from genpipe.evaluation.texts import distinct
from genpipe.sampling.conditioned import classes_of
from genpipe.sampling.draw import conditions, rows_of
from genpipe.sources.verse import form_of

FORM = re.compile(r"[1-9]\d*x[1-9]\d*")  # characters of a line x lines, as 5x8
UNKNOWN_AS = "□"  # how a speller writes it


def judge_conditions(trial: Trial) -> dict[str, float]:
    """Shares of samples with the class that was asked for, and what it costs to read a text under another one.

    A verse form is that of the text itself; of other conditions naive Bayes says the class, by the characters of the training
    texts. Both are beside real texts under their own classes, and the most frequent class.
    """
    sizes = classes_of(trial.data.facts, trial.recipe.given)
    if not sizes:
        raise NotMeasured("condition_accuracy: the model takes no classes")
    metrics = costs(trial, sizes)
    if trial.split != "test":
        return metrics
    drawn, asked = samples_of(trial)
    real = texts_of(trial.data, "test", len(drawn))
    metrics |= agreement(trial, sizes, drawn, real, asked)
    written, known = ([text.tolist() for text in texts] for texts in (drawn, real))
    for n in (1, 2):
        metrics |= {f"distinct_{n}": distinct(written, n), f"distinct_{n}_real": distinct(known, n)}
    return metrics


def agreement(
    trial: Trial,
    sizes: Mapping[str, Sequence[str]],
    drawn: Sequence[Ids],
    real: Sequence[Ids],
    asked: Mapping[str, Ids],
) -> dict[str, float]:
    """Shares of texts, drawn ones and real ones, whose class is the one asked for: of forms, of other conditions, and of all at once."""
    found: dict[str, list[tuple[Ids, Ids]]] = {"form": [], "condition": []}
    constant: dict[str, list[float]] = {"form": [], "condition": []}
    train = texts_of(trial.data, "train")
    for name, classes in sizes.items():
        kind = "form" if is_form(classes) and trial.speller else "condition"
        if kind == "form":
            answers = [forms(trial, texts, classes) for texts in (drawn, real)]
        else:
            labels = labels_of(trial.data, "train", name)
            bayes = NaiveBayes(train, labels, len(classes), trial.data.facts["num_tokens"])
            answers = [bayes.classify(texts) for texts in (drawn, real)]
        right = [answer == asked[name] for answer in answers]
        found[kind].append((right[0], right[1]))
        constant[kind].append(float(np.bincount(asked[name]).max() / len(drawn)))
    metrics: dict[str, float] = {}
    for kind, pairs in found.items():
        if pairs:
            mine, theirs = (np.mean(side) for side in zip(*pairs, strict=True))
            metrics |= {f"{kind}_accuracy": float(mine), f"{kind}_accuracy_real": float(theirs)}
            metrics[f"{kind}_accuracy_majority"] = float(np.mean(constant[kind]))
    every = [pair for pairs in found.values() for pair in pairs]
    if len(every) > 1:
        both = [np.logical_and.reduce(side) for side in zip(*every, strict=True)]
        metrics |= {"all_conditions": float(both[0].mean()), "all_conditions_real": float(both[1].mean())}
    return metrics


def costs(trial: Trial, sizes: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Bits a character beside unigrams and bigrams of the training texts, and how many nats more a character costs under another class."""
    assert isinstance(trial.recipe, LogProb)
    changed: dict[str, list[float]] = {"form": [], "condition": []}
    right = nats_under(trial, {})
    texts = texts_of(trial.data, trial.split)
    number = sum(map(len, texts)) + len(texts)
    for name, classes in sizes.items():
        if len(classes) > 1:
            kind = "form" if is_form(classes) else "condition"
            changed[kind].append((nats_under(trial, {name: len(classes)}) - right) / number)
    facts = trial.data.facts
    ngrams = Bigrams(texts_of(trial.data, "train"), facts["num_tokens"], facts["start"], facts["end"])
    metrics = {"bits_per_character": right / number / math.log(2)}
    metrics |= {f"bits_per_character_{name}": value for name, value in ngrams.bits(texts).items()}
    return metrics | {f"{kind}_gap": float(np.mean(gaps)) for kind, gaps in changed.items() if gaps}


def nats_under(trial: Trial, shifted: Mapping[str, int]) -> float:
    """Nats of all texts of the split; a condition in `shifted`, with its number of classes, is the next class instead of its own."""
    total = 0.0
    with torch.no_grad():
        for x in trial.data.split(trial.split):
            others = {name: (x[name] + 1) % size for name, size in shifted.items()}
            total -= float(trial.recipe.log_prob({**x, **others}).double().sum())
    return total


def samples_of(trial: Trial) -> tuple[list[Ids], dict[str, Ids]]:
    """The texts that the stage `sample` wrote, without padding, and the classes that each was asked for."""
    ids = np.load(trial.samples / "texts.npy")
    asked = conditions(trial.recipe, trial.data, len(ids))
    pad = trial.data.facts["pad"]
    return [row[row != pad] for row in ids], {name: value.numpy() for name, value in asked.items()}


def texts_of(data: Data, split: str, most: int | None = None) -> list[Ids]:
    """The first texts of a split as ids without padding, from the beginning again where there are fewer."""
    found: list[Ids] = []
    for x in data.split(split):
        found += [row[:length].numpy() for row, length in zip(x["ids"], x["lengths"].tolist(), strict=True)]
        if most is not None and len(found) >= most:
            break
    return found if most is None else [found[i % len(found)] for i in range(most)]


def labels_of(data: Data, split: str, name: str) -> Ids:
    """The classes of a condition, int64 [n]."""
    return np.concatenate([x[name].numpy() for x in data.split(split) if rows_of(x)])


def is_form(classes: Sequence[str]) -> bool:
    """Whether all classes of a condition name verse forms."""
    return all(FORM.fullmatch(name) for name in classes)


def forms(trial: Trial, texts: Sequence[Ids], classes: Sequence[str]) -> Ids:
    """The class of the form of each text, int64 [n]; -1 where it is none of them."""
    assert trial.speller is not None
    # an unknown character is one of a line
    found = [form_of(trial.speller.line(text.tolist()).replace(UNKNOWN_AS, "〇")) for text in texts]
    return np.array([classes.index(form) if form in classes else -1 for form in found], np.int64)
