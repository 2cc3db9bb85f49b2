"""Layers over the rows of several slices at once; the gradients of their parameters are made slice by slice.

Each function takes a leaf of every parameter for each slice. All leaves of a parameter share its memory, so the first one
serves the forward pass. Kernels are the ones that autograd itself calls for a slice.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from genpipe.training.logical import Node, middle

aten = torch.ops.aten
Convolution = tuple[list[int], list[int], list[int], bool, list[int], int]  # the last arguments of aten's


@dataclass
class Uses:
    """How often a parameter is used in a pass, and which sums over slices may take the place of its gradients.

    `nodes` are subtrees of the slices of the pass; the sum over one is the gradient of its first slice, its others have none.
    """

    nodes: Sequence[Node]
    count: int = 0


def _sum_of_products(gs: Sequence[Tensor], xs: Sequence[Tensor], node: Node) -> Tensor:
    """The sum over a subtree of the gradients of a weight, [outputs, inputs], in the order of the tree."""
    first, last = node
    if last - first == 1:
        return gs[first].t().mm(xs[first])
    cut = middle(node)
    left = _sum_of_products(gs, xs, (first, cut))
    if last - cut == 1:
        return left.addmm_(gs[cut].t(), xs[cut])
    return left.add_(_sum_of_products(gs, xs, (cut, last)))


def _adds_up(x: Tensor, g: Tensor) -> bool:
    """Whether a product can be added to what is there with the bits of a sum of two; a long one is added piece by piece."""
    return (
        x.is_contiguous()
        and g.is_contiguous()
        and x.dtype == g.dtype == torch.float32
        and _adds_up_at(len(x), x.shape[1], g.shape[1])
    )


@functools.cache
def _adds_up_at(rows: int, inputs: int, outputs: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    for _ in range(1 + min(63, 8192 // (inputs * outputs))):
        x, g, there = (
            torch.randn(shape, generator=generator)
            for shape in ((rows, inputs), (rows, outputs), (outputs, inputs))
        )
        if not torch.equal(there + g.t().mm(x), there.clone().addmm_(g.t(), x)):
            return False
    return True


class Linear(torch.autograd.Function):
    """x, [slices · rows, ..., inputs], times the weights, and the bias where there is one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, num_slices: int, uses: Uses, *leaves: Tensor) -> Tensor:
        """`leaves`: the weight of each slice, then the bias of each slice or nothing; `uses` are those of the weight."""
        ctx.save_for_backward(x, leaves[0])
        ctx.uses = uses
        ctx.num_slices, ctx.with_bias = num_slices, len(leaves) > num_slices
        return F.linear(x, leaves[0], leaves[num_slices] if ctx.with_bias else None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        gx = g.matmul(weight) if ctx.needs_input_grad[0] else None
        xs = x.reshape(-1, x.shape[-1]).chunk(ctx.num_slices)
        gs = g.reshape(-1, g.shape[-1]).chunk(ctx.num_slices)
        weights: list[Tensor | None] = [None] * ctx.num_slices
        nodes = ctx.uses.nodes if ctx.uses.count == 1 and _adds_up(xs[0], gs[0]) else ()
        for node in nodes or [(v, v + 1) for v in range(ctx.num_slices)]:
            weights[node[0]] = _sum_of_products(gs, xs, node)
        biases = [b.sum(0) for b in gs] if ctx.with_bias else []
        return gx, None, None, *weights, *biases


class Conv(torch.autograd.Function):
    """A convolution of x, [slices · rows, channels, ...], or the transposed one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, num_slices: int, how: Convolution, *leaves: Tensor) -> Tensor:
        """`leaves`: the kernel of each slice, then the bias of each slice or nothing."""
        ctx.save_for_backward(x, leaves[0])
        ctx.num_slices, ctx.how, ctx.with_bias = num_slices, how, len(leaves) > num_slices
        return aten.convolution(x, leaves[0], leaves[num_slices] if ctx.with_bias else None, *how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        # the number of outputs; a transposed kernel is [in, out / groups, ...]
        outputs = [g.shape[1]] if ctx.with_bias else None

        def gradients(part: Tensor, of: Tensor, mask: list[bool]) -> Sequence[Tensor]:
            return aten.convolution_backward(of, part, weight, outputs, *ctx.how, mask)

        gx = gradients(x, g, [True, False, False])[0] if ctx.needs_input_grad[0] else None
        parts = zip(x.chunk(ctx.num_slices), g.chunk(ctx.num_slices), strict=True)
        made = [gradients(part, of, [False, True, ctx.with_bias]) for part, of in parts]
        biases = [bias for _, _, bias in made] if ctx.with_bias else []
        return gx, None, None, *(kernel for _, kernel, _ in made), *biases


class Embedding(torch.autograd.Function):
    """The rows of a table at ids, [slices · rows, ...]."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, num_slices: int, padding: int, *leaves: Tensor) -> Tensor:
        """`leaves`: the table of each slice; the row `padding` gets no gradient, -1: all do."""
        ctx.save_for_backward(ids)
        ctx.num_slices, ctx.padding, ctx.num_rows = num_slices, padding, len(leaves[0])
        return aten.embedding(leaves[0], ids, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (ids,) = ctx.saved_tensors
        parts = zip(g.chunk(ctx.num_slices), ids.chunk(ctx.num_slices), strict=True)
        tables = [
            aten.embedding_dense_backward(of, part, ctx.num_rows, ctx.padding, False) for of, part in parts
        ]
        return None, None, None, *tables


class NegativeLogLikelihood(torch.autograd.Function):
    """The mean over each slice of minus the log-probabilities, [slices, n, classes], at targets, [slices, n]."""

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, targets: Tensor, ignored: int) -> tuple[Tensor, ...]:
        """A 0-dimensional tensor for each slice."""
        made = [aten.nll_loss_forward(p, t, None, 1, ignored) for p, t in zip(log_p, targets, strict=True)]
        ctx.ignored = ignored
        ctx.save_for_backward(log_p, targets, *(count for _, count in made))
        return tuple(value for value, _ in made)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        log_p, targets, *counts = ctx.saved_tensors
        gradient = torch.empty_like(log_p)
        for row in zip(gs, log_p, targets, counts, gradient, strict=True):
            g, p, t, count, out = row
            aten.nll_loss_backward.grad_input(g, p, t, None, 1, ctx.ignored, count, grad_input=out)
        return gradient, None, None
