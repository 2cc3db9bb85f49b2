"""Operations that run once over all slices, since they treat rows alike: layers, elementwise ones, views, softmax.

A rule gets the number of slices and the arguments, `Stacked` in the place of tensors; NotImplemented: slice by slice.
Its result has the bits of the operation on each slice, which the trainer checks; views stay views.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.training import layers
from genpipe.training.stacked import Leaf, Refused, Rule, Stacked, joined

Run = Callable[..., Any]
# each result is the rounded exact one, or one of the arguments: the bits of a number do not depend on its place
ROUNDED = (
    "relu leaky_relu hardtanh relu6 square abs neg sign floor ceil round add sub mul div true_divide rsub where "
    "eq ne lt le gt ge logical_and logical_or logical_not float double long int bool contiguous detach"
)
OPERATORS = "add radd sub rsub mul rmul truediv rtruediv neg abs eq ne lt le gt ge and or invert"
OTHERWISE = (
    torch.complex64,
    torch.complex128,
    torch.bfloat16,
    torch.float16,
)  # types of which that is not so
# torch computes most numbers by vectors, and the last ones of a tensor by another function that rounds otherwise, or takes
# another one of two zeros
SMOOTH = "maximum minimum elu selu gelu silu mish softplus logsigmoid sigmoid tanh exp expm1 log log1p sqrt rsqrt sin cos reciprocal pow lerp erf"
VECTORS = 64  # numbers: a multiple of what any kernel takes at once


def linear(n: int, x: Any, weight: Any, bias: Any = None) -> Any:
    """F.linear."""
    if not isinstance(x, Stacked) or x.dim() < 2 or not _are_parameters(weight, bias):
        return NotImplemented
    # else torch adds the bias by itself, and sums up its gradient in the order of strides that are not known here
    if x.dim() > 2 and not (x.parts[0] if x.whole is None else x.whole[0]).is_contiguous():
        return NotImplemented
    rows = x.stacked().flatten(0, 1)
    if not isinstance(weight, Leaf):
        return _cut(F.linear(rows, weight, bias), n)
    return _cut(layers.Linear.apply(rows, n, weight.uses, *_leaves(weight, bias)), n)


def convolution(dims: int, transposed: bool) -> Run:
    """F.convNd, or F.conv_transposeNd."""

    def rule(n: int, x: Any, weight: Any, bias: Any = None, *how: Any, **named: Any) -> Any:
        keys = (
            "stride",
            "padding",
            *(("output_padding", "groups", "dilation") if transposed else ("dilation", "groups")),
        )
        given = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
        given |= {**dict(zip(keys, how, strict=False)), **named}
        there = isinstance(x, Stacked) and x.dim() == dims + 2 and _are_parameters(weight, bias)
        if not there or isinstance(given["padding"], str):
            return NotImplemented
        sizes = {key: _each_side(value, dims) for key, value in given.items() if key != "groups"}
        outputs = sizes["output_padding"]
        last = (sizes["stride"], sizes["padding"], sizes["dilation"], transposed, outputs, given["groups"])
        rows = x.stacked().flatten(0, 1)
        if not isinstance(weight, Leaf):
            return _cut(torch.ops.aten.convolution(rows, weight, bias, *last), n)
        return _cut(layers.Conv.apply(rows, n, last, *_leaves(weight, bias)), n)

    return rule


def embedding(
    n: int,
    ids: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """F.embedding, without the options that change the table or count ids."""
    if max_norm is not None:
        raise Refused("changes the table of an embedding")
    plain = not scale_grad_by_freq and not sparse
    if not isinstance(ids, Stacked) or not ids.dim() or not isinstance(weight, Leaf) or not plain:
        return NotImplemented
    row = -1 if padding_idx is None else padding_idx % len(weight)
    return _cut(layers.Embedding.apply(ids.stacked().flatten(0, 1), n, row, *weight.parts), n)


def cross_entropy(n: int, x: Any, target: Any, *others: Any, **named: Any) -> Any:
    """F.cross_entropy of logits, [n, classes], at classes, [n], as it is without options."""
    options = {
        "weight": None,
        "size_average": None,
        "reduce": None,
        "reduction": "mean",
        "label_smoothing": 0.0,
    }
    ignored = named.pop("ignore_index", -100)
    if others or any(options.get(name, NotImplemented) != value for name, value in named.items()):
        return NotImplemented
    if not (_whole(x) and _whole(target) and x.dim() == 2 and target.dim() == 1):
        return NotImplemented
    log_p = torch.log_softmax(x.whole, -1)
    return joined(layers.NegativeLogLikelihood.apply(log_p, target.whole, ignored))


def elementwise(func: Callable[..., Any], by_vectors: bool = False) -> Run:
    """An operation on each number, on tensors of one shape; numbers and tensors without a gradient may be spread.

    `by_vectors`: only where no slice ends within a vector.
    """

    def rule(n: int, *args: Any, **named: Any) -> Any:
        stacked = [x for x in args if isinstance(x, Stacked)]
        if not any(map(_whole, stacked)) or any(isinstance(x, Leaf) for x in stacked):
            return NotImplemented
        if not _is_plain(args, named):
            return NotImplemented
        shape = stacked[0].shape
        # numbers of no dimension have a rank of their own in the promotion of types; vectors round complex ones otherwise
        if not shape or any(x.dtype in OTHERWISE for x in stacked):
            return NotImplemented
        if any(x.shape != shape for x in stacked) or (by_vectors and not all(map(_is_in_vectors, stacked))):
            return NotImplemented
        others = [x for x in args if isinstance(x, Tensor) and not isinstance(x, Stacked)]
        if any(x.requires_grad or by_vectors or not _spreads(x.shape, shape) for x in others):
            return NotImplemented
        made = func(*[x.stacked() if isinstance(x, Stacked) else x for x in args], **named)
        return Stacked.of_whole(made) if isinstance(made, Tensor) else NotImplemented

    return rule


def bounded(func: Callable[..., Any]) -> Run:
    """torch.clamp by numbers."""
    rule = elementwise(func)

    def by_numbers(n: int, x: Any, *bounds: Any, **named: Any) -> Any:
        return NotImplemented if any(isinstance(b, Tensor) for b in bounds) else rule(n, x, *bounds, **named)

    return by_numbers


def to(n: int, x: Any, *args: Any, **named: Any) -> Any:
    """Tensor.to; the type and the device of another tensor will do."""
    if not _whole(x) or any(isinstance(value, Stacked) for value in named.values()):
        return NotImplemented
    kinds = [
        value
        for other in args
        for value in ((other.device, other.dtype) if isinstance(other, Stacked) else (other,))
    ]
    return Stacked.of_whole(x.whole.to(*kinds, **named))


def along(func: Callable[..., Any], num_dims: int = 1) -> Run:
    """An operation along dimensions, its first arguments, that leaves others alone, or a view that moves them."""

    def rule(n: int, x: Any, *args: Any, **named: Any) -> Any:
        if num_dims == 1 and not args and "dim" in named:
            args = (named.pop("dim"),)
        dims, others = args[:num_dims], args[num_dims:]
        if (
            not _whole(x)
            or named
            or len(dims) < num_dims
            or any(isinstance(value, Tensor) for value in others)
        ):
            return NotImplemented
        if not all(_inside(dim, x) for dim in dims):
            return NotImplemented
        return _wrapped(func(x.whole, *map(_moved, dims), *others))

    return rule


def parted(func: Callable[..., Any]) -> Run:
    """torch.chunk, torch.split."""

    def rule(n: int, x: Any, size: Any, dim: int = 0) -> Any:
        there = _whole(x) and _inside(dim, x)
        return _wrapped(func(x.whole, size, _moved(dim))) if there else NotImplemented

    return rule


def reshape(n: int, x: Any, *shape: Any) -> Any:
    """Tensor.reshape."""
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if not _whole(x) or not all(type(size) is int for size in sizes):
        return NotImplemented
    if not x.whole.is_contiguous():  # a view of a slice might be a copy of the whole
        return NotImplemented
    return Stacked.of_whole(x.whole.reshape(n, *sizes))


def flatten(n: int, x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Tensor.flatten."""
    if not _whole(x) or not _inside(start_dim, x) or not _inside(end_dim, x):
        return NotImplemented
    return Stacked.of_whole(x.whole.flatten(_moved(start_dim), _moved(end_dim)))


def item(n: int, x: Any, key: Any) -> Any:
    """x[key] of numbers, slices, None and an ellipsis."""
    keys = key if isinstance(key, tuple) else (key,)
    plain = all(type(k) in (int, slice, type(None), type(Ellipsis)) for k in keys)
    return Stacked.of_whole(x.whole[(slice(None), *keys)]) if _whole(x) and plain else NotImplemented


def cat(n: int, tensors: Any, dim: int = 0) -> Any:
    """torch.cat."""
    if not all(_whole(x) and _inside(dim, x) for x in tensors):
        return NotImplemented
    return Stacked.of_whole(torch.cat([x.whole for x in tensors], _moved(dim)))


def _whole(x: Any) -> bool:
    return isinstance(x, Stacked) and x.whole is not None


def _inside(dim: Any, x: Stacked) -> bool:
    return type(dim) is int and -x.dim() <= dim < x.dim()


def _moved(dim: int) -> int:
    """A dimension of a slice, where slices are the first one."""
    return dim + (dim >= 0)


def _wrapped(made: Any) -> Any:
    if isinstance(made, Tensor):
        return Stacked.of_whole(made)
    return type(made)(Stacked.of_whole(part) for part in made)


def _cut(rows: Tensor, n: int) -> Stacked:
    """[slices · rows, ...]"""
    return Stacked.of_whole(rows.unflatten(0, (n, -1)))


def _are_parameters(weight: Any, bias: Any) -> bool:
    """Both of the update, or both of no one."""
    kinds = {isinstance(x, Leaf) for x in (weight, bias) if x is not None}
    return len(kinds) == 1 and all(
        isinstance(x, Leaf) or type(x) is Tensor for x in (weight, bias) if x is not None
    )


def _leaves(weight: Leaf, bias: Leaf | None) -> list[Tensor]:
    return [*weight.parts, *(bias.parts if bias is not None else ())]


def _each_side(value: int | Sequence[int], dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value) * (dims if len(value) == 1 else 1)


def _is_plain(args: Sequence[Any], named: dict[str, Any]) -> bool:
    """No tensor among the options, and nothing written in place."""
    given = (*args, *named.values())
    in_place = any(x is True for x in given)
    return (
        not in_place
        and not any(isinstance(x, (list, tuple, dict)) for x in given)
        and not any(isinstance(x, Tensor) for x in named.values())
    )


def _is_in_vectors(x: Stacked) -> bool:
    """Whether torch meets only whole vectors: numbers lie beside each other in runs of as many, in a slice as in the whole."""
    part = x.parts[0] if x.whole is None else x.whole[0]
    run = 1
    for size, stride in zip(reversed(part.shape), reversed(part.stride()), strict=True):
        if stride != run and size != 1:
            break
        run *= size
    return run % VECTORS == 0


def _spreads(shape: Sequence[int], to: Sequence[int]) -> bool:
    tail = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def _table() -> dict[Any, Rule]:
    rules = {
        F.linear: Rule(linear, False),
        F.embedding: Rule(embedding, True),
        F.cross_entropy: Rule(cross_entropy, False),
    }
    for dims in (1, 2, 3):
        for name, transposed in ((f"conv{dims}d", False), (f"conv_transpose{dims}d", True)):
            for owner in (torch, F):
                rules[getattr(owner, name)] = Rule(convolution(dims, transposed), False)
    operators = " ".join(f"__{name}__" for name in OPERATORS.split())
    for names, is_exact in ((f"{ROUNDED} {operators}", True), (f"{SMOOTH} __pow__", False)):
        for func in (getattr(owner, name, None) for name in names.split() for owner in (torch, Tensor, F)):
            if callable(func):
                rules[func] = Rule(elementwise(func, by_vectors=not is_exact), is_exact)
    for func in (torch.clamp, torch.clip, Tensor.clamp, Tensor.clip):
        rules[func] = Rule(bounded(func), True)
    views = {
        flatten: (torch.flatten, Tensor.flatten),
        reshape: (Tensor.reshape, Tensor.view),
        cat: (torch.cat, torch.concat),
    }
    views |= {item: (Tensor.__getitem__,), to: (Tensor.to,)}
    rules |= {func: Rule(run, True) for run, funcs in views.items() for func in funcs}
    for owner in (torch, Tensor):
        rules |= {
            getattr(owner, name): Rule(parted(getattr(owner, name)), True) for name in ("chunk", "split")
        }
        rules[owner.transpose] = Rule(along(owner.transpose, 2), True)
        for name in ("unsqueeze", "unflatten", "argmax", "argmin", "softmax", "log_softmax"):
            rules[getattr(owner, name)] = Rule(along(getattr(owner, name)), "softmax" not in name)
    return rules


RULES = _table()
