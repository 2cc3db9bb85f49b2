"""What codes say of classes: the nearest neighbour's class, and a linear probe; both without chance.

Codes of the first 2,000 training examples, for the probe standardised, against those of the first 1,000 test examples.
"""

import numpy as np
import torch
from torch import Tensor

from genpipe.capabilities import Encodes, Example
from genpipe.evaluation.features import beginning
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.evaluation.neighbours import share
from genpipe.sampling.draw import in_chunks
from genpipe.sampling.panels import as_values

NUM_TRAIN = 2000
NUM_TEST = 1000
PENALTY = 1.0  # half the square of the weights is added to the sum of the losses
MOST_STEPS = 500


def judge_probe(trial: Trial) -> dict[str, float]:
    """Accuracy of the nearest neighbour and of logistic regression on codes, beside pixels and the most frequent class."""
    if "num_classes" not in trial.data.facts:
        raise NotMeasured("neighbour_accuracy: the data has no labels")
    if "labels" in getattr(trial.recipe, "given", ()):
        raise NotMeasured("neighbour_accuracy: codes of a model that is given the class need not hold it")
    train, test = beginning(trial.data, NUM_TRAIN, "train"), beginning(trial.data, NUM_TEST, trial.split)
    codes = codes_of(trial.recipe, train), codes_of(trial.recipe, test)
    labels, right = train["labels"], test["labels"]
    return {
        "neighbour_accuracy": share(nearest_labels(*codes, labels) == right),
        "neighbour_accuracy_raw": share(nearest_labels(raw(train), raw(test), labels) == right),
        "probe_accuracy": share(probed(*standardised(*codes), labels) == right),
        "probe_accuracy_raw": share(probed(*standardised(raw(train), raw(test)), labels) == right),
        "probe_accuracy_majority": share(labels.mode().values == right),
        "probe_num_codes": float(len(labels)),
    }


def codes_of(model: Encodes, x: Example) -> Tensor:
    """Codes, float64 [n, latent]."""
    return in_chunks(lambda part: model.encode(as_values(part)), x).double()


def raw(x: Example) -> Tensor:
    """Pixels or coordinates, float64 [n, dim]: distances of bytes come from whole numbers that float32 has to round."""
    return (x["images"] if "images" in x else x["points"]).flatten(1).double()


def standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both, [n, dim], with the mean and deviation of the first; a coordinate that never changes stays 0."""
    mean, deviation = train.mean(0), train.std(0, correction=0)
    scale = torch.where(deviation > 0, deviation, 1)
    return (train - mean) / scale, (test - mean) / scale


def nearest_labels(train: Tensor, test: Tensor, labels: Tensor) -> Tensor:
    """The label, [m], of the nearest training row to each test row; of the first of equally near ones."""
    return labels[torch.cdist(test, train).argmin(1)]


def probed(train: Tensor, test: Tensor, labels: Tensor, most_steps: int = MOST_STEPS) -> Tensor:
    """The classes, [m], that multinomial logistic regression on training rows gives to test rows."""
    weight, bias = fitted(train.numpy(), labels.numpy(), most_steps)
    return torch.from_numpy(test.numpy() @ weight + bias).argmax(1)


def fitted(x: np.ndarray, labels: np.ndarray, most_steps: int = MOST_STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Weights, [dim, classes], and biases, [classes], at the one minimum of Σ cross entropy + ‖weights‖²/2 (L-BFGS)."""
    from scipy.optimize import minimize

    classes = int(labels.max()) + 1
    right = np.eye(classes)[labels]
    shape = (x.shape[1] + 1, classes)
    padded = np.concatenate([x, np.ones((len(x), 1))], axis=1)

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(shape)
        logits = padded @ w
        logits -= logits.max(1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(1, keepdims=True))
        penalised = np.concatenate([w[:-1], np.zeros((1, classes))])
        value = (log_sum[:, 0] - (logits * right).sum(1)).sum() + PENALTY / 2 * np.square(penalised).sum()
        gradient = padded.T @ (np.exp(logits - log_sum) - right) + PENALTY * penalised
        return float(value), gradient.ravel()

    found = minimize(
        value_and_gradient,
        np.zeros(shape[0] * classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": most_steps},
    )
    weight = found.x.reshape(shape)
    return weight[:-1], weight[-1]
