"""Techniques against label noise: 600 digits, a fifth of their labels drawn anew, and a small network that can learn them
by heart.

python -m benchmarks.noisy_digits [--data artifacts/datasets/digits] [--epochs 120] [--seeds 5]

Every training goes through the trainer, with the techniques as params.yaml would name them. A seed is that of the choice of
digits, the noise, the weights and the batches.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.data.images import Images
from genpipe.errors import GenpipeError
from genpipe.files import existing, write_json
from genpipe.params.training import Training
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update
from genpipe.sampling.draw import whole
from genpipe.training.logical import Alone
from genpipe.training.runs import Run
from genpipe.training.trainer import Trainer

PROJECT = Path(__file__).parents[1]
NUM_DIGITS = 600
NOISE = 0.2  # share of the labels that are drawn anew
BATCH_SIZE = 50
HIDDEN_DIM = 256

TECHNIQUES: dict[str, dict[str, Any]] = {
    "none": {},
    "mixup, alpha 1": {"batch": [{"do": "mixup", "alpha": 1.0}]},
    "SamplePairing, always on": {"batch": [{"do": "sample_pairing", "steps_off": 0}]},
    "flooding, level 0.6": {"loss": [{"do": "flooding", "level": 0.6}]},
}

Scores = dict[str, float]


class Perceptron(Recipe):
    """Pixels, one hidden layer of ReLU units, and logits of the classes."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.layers = nn.Sequential(
            nn.Linear(channels * height * width, HIDDEN_DIM), nn.ReLU(), nn.Linear(HIDDEN_DIM, num_classes)
        )

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of the label."""
        return (Phase("likelihood", (Update("nll", self.cross_entropy, (self,)),)),)

    def cross_entropy(self, batch: Batch) -> Loss:
        """Nats a label, be it a class or the shares of each class."""
        return Loss(F.cross_entropy(self.classify(batch["images"]), batch["labels"]))

    def classify(self, images: Tensor) -> Tensor:
        """Logits, [batch, num_classes], of images in 0-255, [batch, channels, height, width]."""
        return self.layers(images.flatten(1).to(next(self.parameters()).dtype) / 255)


def noisy(labels: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Labels, uint8 [rows], of which the share `NOISE` is drawn anew from all classes: a tenth of those by luck as before."""
    drawn = rng.choice(len(labels), round(NOISE * len(labels)), replace=False)
    noised = labels.copy()
    noised[drawn] = rng.integers(0, num_classes, len(drawn), dtype=labels.dtype)
    return noised


def write_few(source: Images, directory: Path, seed: int) -> Images:
    """`NUM_DIGITS` images of the training split with noisy labels, beside the whole test split."""
    directory.mkdir()
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(source.images["train"]), NUM_DIGITS, replace=False)
    labels = noisy(source.labels["train"][rows], source.facts["num_classes"], rng)
    arrays = {"train_images": source.images["train"][rows], "train_labels": labels}
    arrays |= {"test_images": source.images["test"], "test_labels": source.labels["test"]}
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)
    facts = {**source.facts, "num_images": NUM_DIGITS}
    write_json(directory / "data.json", {"kind": "images", "splits": source.splits, "facts": facts})
    return Images(directory)


def train(data: Images, technique: Mapping[str, Any], epochs: int, seed: int, directory: Path) -> Perceptron:
    """A perceptron after so many epochs of Adam with a technique."""
    steps = epochs * data.facts["num_images"] // BATCH_SIZE
    params = Training.model_validate(
        {
            "batch_size": BATCH_SIZE,
            "steps": steps,
            "checkpoint_every": steps,
            "logical_workers": 1,  # one share of mixup a batch, as in the paper
            "solvers": {"nll": {"optimiser": "adam", "lr": 1e-3, **technique}},
        }
    )
    torch.manual_seed(seed)
    recipe = Perceptron(data.facts["image_shape"], data.facts["num_classes"])
    Trainer(recipe, data, params, seed, Alone(), Run(directory)).fit()
    return recipe.eval()


@torch.no_grad()
def scores(recipe: Perceptron, data: Images) -> Scores:
    """Accuracy and cross-entropy, in nats, on the test split, and cross-entropy on the noisy labels, unmixed."""
    test = whole(data, "test")
    logits = recipe.classify(test["images"])
    labels = torch.from_numpy(data.labels["train"].astype(np.int64))
    learnt = recipe.classify(torch.from_numpy(np.array(data.images["train"])))
    return {
        "test accuracy": (logits.argmax(1) == test["labels"]).double().mean().item(),
        "test cross-entropy": F.cross_entropy(logits, test["labels"]).item(),
        "cross-entropy of the noisy labels": F.cross_entropy(learnt, labels).item(),
    }


def experiment(source: Images, epochs: int, seeds: range) -> dict[str, list[Scores]]:
    """The scores of each technique, seed by seed; a seed gives all techniques the same digits and the same noise."""
    results: dict[str, list[Scores]] = {name: [] for name in TECHNIQUES}
    with tempfile.TemporaryDirectory(prefix="noisy-digits-") as scratch:
        for seed in seeds:
            data = write_few(source, Path(scratch) / f"data-{seed}", seed)
            for number, (name, technique) in enumerate(TECHNIQUES.items()):
                directory = Path(scratch) / f"run-{seed}-{number}"
                results[name].append(scores(train(data, technique, epochs, seed, directory), data))
                print(f"seed {seed}: {name}: {results[name][-1]}", file=sys.stderr, flush=True)
    return results


def table(results: Mapping[str, list[Scores]]) -> str:
    """Mean ± standard deviation over the seeds, as Markdown."""
    names = list(next(iter(results.values()))[0])
    rows = [f"| technique | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for technique, found in results.items():
        cells = [_mean_and_deviation([score[name] for score in found]) for name in names]
        rows.append(f"| {technique} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _mean_and_deviation(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def main() -> None:
    """Run the experiment and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=PROJECT / "artifacts" / "datasets" / "digits")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=5, help="how many, 2 or more: they have a deviation")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        source = Images(existing(given.data, "run genpipe prepare digits"))
        print(table(experiment(source, given.epochs, range(given.seeds))))
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
