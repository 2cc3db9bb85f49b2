"""The classes that the yardstick finds in samples: how many, how evenly, and whether they are those that were asked for."""

import torch
from torch import Tensor

from genpipe.capabilities import Classifies, Embeds
from genpipe.evaluation.features import compared, drawn_images
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.nn.pixels import scaled
from genpipe.sampling.draw import in_chunks, whole

MOST = 500  # images of each kind
RARE = 0.2  # of the share that a class has in real images: below that it counts as missing


def judge_found_classes(trial: Trial) -> dict[str, float]:
    """Class coverage and entropy of the samples and of the real images they are compared with; agreement under conditions."""
    found = compared(trial)
    yardstick, n = found.side.yardstick, min(MOST, len(found.drawn))
    if not isinstance(yardstick, Classifies):
        raise NotMeasured("class_coverage: the judge finds no classes; name a classifier")
    drawn = classes_of(yardstick, drawn_images(trial)[:n])
    test = whole(trial.data, trial.split)
    real, other = (classes_of(yardstick, test["images"][part]) for part in (slice(n), slice(n, 2 * n)))
    metrics = {
        "class_coverage": coverage(drawn, real),
        "class_coverage_real": coverage(other, real),
        "class_entropy": entropy(drawn),
        "class_entropy_real": entropy(real),
    }
    if found.labels is None:
        return metrics
    return metrics | {
        "class_agreement": float((drawn == found.labels[:n]).double().mean()),
        "class_agreement_real": float((real == test["labels"][:n]).double().mean()),
    }


def classes_of(yardstick: Embeds, images: Tensor) -> Tensor:
    """The likeliest class of each of some images, uint8, as int64 [n]."""
    assert isinstance(yardstick, Classifies)
    return in_chunks(yardstick.classify, {"images": scaled(images)}).argmax(-1)


def coverage(found: Tensor, real: Tensor) -> float:
    """The share of the classes of real images, int64 [n], that have at least a fifth of their share there in `found`, [m]."""
    size = int(max(found.max(), real.max())) + 1
    shares, known = (torch.bincount(x, minlength=size).double() / len(x) for x in (found, real))
    there = known > 0
    return float((shares[there] >= RARE * known[there]).double().mean())


def entropy(found: Tensor) -> float:
    """Entropy in nats of the shares of classes, int64 [n]."""
    shares = torch.bincount(found).double() / len(found)
    return float(torch.special.entr(shares).sum())
