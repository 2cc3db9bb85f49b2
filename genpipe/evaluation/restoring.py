"""How well a model restores what is hidden of images, and how few labels its features need."""

from collections.abc import Iterator

import torch
from torch import Tensor

from genpipe.capabilities import Example
from genpipe.data.loader import derived_seed
from genpipe.evaluation.features import beginning
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.evaluation.neighbours import share
from genpipe.evaluation.probe import codes_of, probed, raw, standardised
from genpipe.sampling.draw import as_values, chunks, rows_of, whole

NUM_FITTED = 10000  # training images whose mean is the baseline, at most
LABELS = (100, 1000, 10000, 55000)
TRIES = 5  # disjoint sets of as many labels that an accuracy of few is a mean over, where there are so many
FEW = 1000
STEPS = 100  # of the regression; more change the accuracy of many labels by less than its error


def judge_restoring(trial: Trial) -> dict[str, float]:
    """Mean squared error of pixels in [0, 1] that a training would hide, beside the mean image of training."""
    mean = as_values(beginning(trial.data, NUM_FITTED, "train"))["images"].mean(0)
    test = as_values(whole(trial.data, trial.split))
    total = torch.zeros(2, dtype=torch.float64)
    number = 0
    for part, keep, made in restored(trial, test):
        hidden = ~keep
        total += torch.stack(
            [(part - other).double().square()[hidden].sum() for other in (made, mean.expand_as(part))]
        )
        number += int(hidden.sum())
    error, of_mean = (total / number).tolist()
    return {"restoration_mse": error, "restoration_mse_mean_image": of_mean}


def restored(trial: Trial, x: Example) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images, what is kept of them, and what the model makes of that, CHUNK at a time."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for place, part in enumerate(chunks(x)):
            torch.manual_seed(derived_seed(trial.seed, "hidden", place))
            keep = trial.recipe.draw_keep(rows_of(part))
            yield part["images"], keep, trial.recipe.restore(part, keep)["images"]


def judge_labels(trial: Trial) -> dict[str, float]:
    """Accuracy of logistic regression on features, and on pixels, by the number of labels: of all test images."""
    if "num_classes" not in trial.data.facts:
        raise NotMeasured("probe_accuracy_100: the data has no labels")
    train, test = beginning(trial.data, LABELS[-1], "train"), whole(trial.data, trial.split)
    found: dict[str, float] = {}
    for suffix, rows, others in (
        ("", codes_of(trial.recipe, train), codes_of(trial.recipe, test)),
        ("_raw", raw(train), raw(test)),
    ):
        for number in LABELS:
            if number <= len(rows):
                known = accuracy_of(number, rows, others, train["labels"], test["labels"])
                found[f"probe_accuracy_{number}{suffix}"] = known
    return found


def accuracy_of(number: int, rows: Tensor, others: Tensor, labels: Tensor, right: Tensor) -> float:
    """The accuracy on `others`, [m, dim], with `number` of the labels of `rows`; of few a mean over some sets of these."""
    tries = min(TRIES, len(rows) // number) if number <= FEW else 1
    starts = range(0, tries * number, number)
    scores = []
    for start in starts:
        own = slice(start, start + number)
        scores.append(share(probed(*standardised(rows[own], others), labels[own], STEPS) == right))
    return sum(scores) / len(scores)
