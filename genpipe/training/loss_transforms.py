"""Techniques on the loss: adversarial weights, R-drop, flooding.

The first two make a loss of a loss, slice by slice. Flooding belongs to the whole batch, so it acts on the mean gradient:
applied to slices it would be another method, in which some descend while others ascend.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import get_total_norm

from genpipe.errors import BadInput
from genpipe.recipe import Batch, Loss

LossFunction = Callable[[Batch], Loss]


def fgm(
    loss: LossFunction, modules: Iterable[nn.Module], parameters: Sequence[nn.Parameter], epsilon: float
) -> LossFunction:
    """L(theta) + L(theta + epsilon g / |g|): g is the gradient of `parameters`, its norm that of all of them together.

    The move is a constant: nothing is differentiated through it. Adversarial Training Methods for Semi-Supervised Text
    Classification (Miyato, Dai & Goodfellow, 2017, arXiv:1605.07725), on weights (embeddings) instead of activations.
    """
    module = _AsModule(loss, modules)
    names = {parameter: name for name, parameter in module.named_parameters()}

    def adversarial(batch: Batch) -> Loss:
        clean = loss(batch)
        gradients = torch.autograd.grad(
            clean.value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        directions = zip(parameters, normalised(gradients), strict=True)
        moved = {names[parameter]: parameter + epsilon * direction for parameter, direction in directions}
        attacked: Loss = functional_call(module, moved, (batch,))
        metrics = {**clean.metrics, "adversarial_loss": attacked.value.detach()}
        return clean._replace(value=clean.value + attacked.value, metrics=metrics)

    return adversarial


def normalised(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Gradients over their common norm; zeros stay zeros."""
    norm = get_total_norm(gradients)
    return [gradient * torch.where(norm > 0, 1 / norm, 0) for gradient in gradients]


class _AsModule(nn.Module):
    """A loss as the forward pass of a module, so that torch can run it with other parameters and put its own back."""

    def __init__(self, loss: LossFunction, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.loss = loss
        self.owners = nn.ModuleList(modules)

    def forward(self, batch: Batch) -> Loss:
        return self.loss(batch)


def r_drop(loss: LossFunction, weight: float, where: str) -> LossFunction:
    """The mean of two passes + weight/4 (KL(p, q) + KL(q, p)), averaged over examples, in nats.

    R-Drop: Regularized Dropout for Neural Networks (Liang et al., 2021, arXiv:2106.14448), which has the sum of the two
    passes and weight/2: twice this, so that `weight` is the paper's alpha and the learning rate that of one pass.
    """

    def regularised(batch: Batch) -> Loss:
        first, second = loss(batch), loss(batch)
        if first.logits is None or second.logits is None:
            raise BadInput(
                f"{where}.loss: r_drop needs a loss that gives logits, this one gives none; take it out"
            )
        divergence = mean_divergence(first, symmetric_kl(first.logits, second.logits), where)
        value = (first.value + second.value) / 2 + weight / 4 * divergence
        return first._replace(value=value, metrics={**first.metrics, "divergence": divergence.detach()})

    return regularised


def mean_divergence(loss: Loss, divergences: Tensor, where: str) -> Tensor:
    """The mean over the units of a loss: those with logits, which are as many as its weight says."""
    if loss.weight is None:
        return divergences.mean()
    if divergences.numel() != loss.weight.item():
        raise BadInput(
            f"{where}.loss: r_drop compares the logits of units, and there are {divergences.numel()} for a weight of "
            f"{loss.weight.item():g}; give the logits of the kept units only"
        )
    return divergences.sum() / max(divergences.numel(), 1)


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p) in nats, [...], of the categorical distributions with these logits, [..., classes]."""
    log_p, log_q = F.log_softmax(first, -1), F.log_softmax(second, -1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def flood(gradients: list[Tensor], value: float, level: float) -> list[Tensor]:
    """The gradients of |value - level| + level: turned round below the level, 0 at it.

    Do We Need Zero Training Loss After Achieving Zero Training Error? (Ishida et al., 2020, arXiv:2002.08709).
    """
    if value > level:
        return gradients
    return [-gradient if value < level else torch.zeros_like(gradient) for gradient in gradients]
