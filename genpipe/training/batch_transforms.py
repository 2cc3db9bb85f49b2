"""Techniques on the batch of a slice: mixup and SamplePairing. Their random numbers are drawn on the CPU, so that the
same seed makes the same mixture on every device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional as F

from genpipe.errors import BadInput
from genpipe.params.techniques import Mixup, SamplePairing
from genpipe.recipe import Batch

BatchTransform = Callable[[Batch, int], Batch]  # of a slice, at a step


def mix(x: Tensor, permutation: Tensor, share: float) -> Tensor:
    """share x + (1 - share) x[permutation], [batch, ...]; integers become float32 in their own scale."""
    x = x if x.is_floating_point() else x.float()
    return torch.lerp(x[permutation], x, share)


def mixup(
    batch: Batch, permutation: Tensor, share: float, inputs: Sequence[str], labels: str, num_classes: int
) -> Batch:
    """Inputs and one-hot labels mixed by the same share: labels [batch] become [batch, num_classes].

    mixup: Beyond Empirical Risk Minimization (Zhang, Cisse, Dauphin & Lopez-Paz, 2018, arXiv:1710.09412).
    """
    classes = F.one_hot(batch[labels], num_classes)
    mixed = {name: mix(batch[name], permutation, share) for name in inputs}
    return {**batch, **mixed, labels: mix(classes, permutation, share)}


def sample_pairing(batch: Batch, permutation: Tensor, inputs: Sequence[str]) -> Batch:
    """The mean of two inputs under the label of the first.

    Data Augmentation by Pairing Samples for Images Classification (Inoue, 2018, arXiv:1801.02929).
    """
    return {**batch, **{name: mix(batch[name], permutation, 0.5) for name in inputs}}


def share_of(alpha: float) -> float:
    """A share in [0, 1] from Beta(alpha, alpha): mean 1/2, variance 1 / (4 (2 alpha + 1))."""
    concentration = torch.tensor(alpha, dtype=torch.float64)
    return Beta(concentration, concentration).sample().item()


def is_on(technique: SamplePairing, step: int) -> bool:
    """Whether SamplePairing works at a step: in its periods, from `start` on, before `stop`."""
    if step < technique.start or (technique.stop is not None and step >= technique.stop):
        return False
    return (step - technique.start) % (technique.steps_on + technique.steps_off) < technique.steps_on


def batch_transform(technique: Mixup | SamplePairing, facts: Mapping[str, Any], where: str) -> BatchTransform:
    """The function from batch to batch that a technique names; BadInput where its data cannot have it."""
    if isinstance(technique, SamplePairing):
        return _sample_pairing_of(technique, where)
    if "num_classes" not in facts:
        raise BadInput(
            f"{where}.batch: mixup needs labelled data, with num_classes; this has: {', '.join(facts) or 'nothing'}"
        )
    return _mixup_of(technique, facts["num_classes"], where)


def _mixup_of(technique: Mixup, num_classes: int, where: str) -> BatchTransform:
    def transform(batch: Batch, step: int) -> Batch:
        permutation = _permutation(batch, (*technique.inputs, technique.labels), where)
        share = share_of(technique.alpha)
        return mixup(batch, permutation, share, technique.inputs, technique.labels, num_classes)

    return transform


def _sample_pairing_of(technique: SamplePairing, where: str) -> BatchTransform:
    def transform(batch: Batch, step: int) -> Batch:
        if not is_on(technique, step):
            return batch
        return sample_pairing(batch, _permutation(batch, technique.inputs, where), technique.inputs)

    return transform


def _permutation(batch: Batch, wanted: Sequence[str], where: str) -> Tensor:
    """A random order of the rows; fixed points are allowed."""
    for name in wanted:
        if name not in batch:
            raise BadInput(
                f"{where}.batch: {name!r} is not in the batch, which has: {', '.join(batch)}; name one of them"
            )
        if not batch[name].dim():
            raise BadInput(
                f"{where}.batch: {name!r} has no rows to mix; name a tensor with a row for each example"
            )
    rows = batch[wanted[0]]
    return torch.randperm(len(rows)).to(rows.device)
