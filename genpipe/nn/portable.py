"""Kernels whose bits do not depend on the processor, in place of those of MKL that do.

The settings of genpipe/numerics.py leave MKL two ways to follow the maker of a processor: its vector library, and products
of matrices, whose compatible branch is the same everywhere but takes twice the time of oneDNN. Each operation gets its other
kernel below autograd, so that derivatives of any order remain torch's own.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genpipe import numerics
from genpipe.errors import BadInput

# Elements of the right matrix below which a call of oneDNN costs more than it saves. The left one, whose rows are examples,
# does not count: a row must not depend on how many there are.
ENOUGH = 1 << 14
REFUSED = ("acos", "asin", "atan", "log10", "tan", "linalg_lstsq")  # MKL's, and without another kernel

_kept: list[torch.library.Library] = []  # a library that is collected takes its kernels with it


@functools.cache
def is_portable() -> bool:
    """Whether this process computes what every x86-64 processor with AVX2 does: the settings are made, and torch follows them."""
    return numerics.are_set("portable") and torch.backends.cpu.get_cpu_capability() == "AVX2"


@functools.cache
def install() -> None:
    """Replace the kernels of this process, where it is portable; once, and for good."""
    if not is_portable():
        return
    library = torch.library.Library("aten", "IMPL")
    made = {"mm": _mm, "addmm": _addmm, "sqrt": _sqrt, "sqrt_": _sqrt_in_place, "sqrt.out": _sqrt_out}
    made |= {name: functools.partial(_refused, name) for name in REFUSED}
    with warnings.catch_warnings(action="ignore"):  # that the operations had kernels
        for name, make in made.items():
            kernel = make(torch.library.get_kernel(f"aten::{name}", "CPU").call_boxed)
            library.impl(name, kernel, "CPU", with_keyset=True, allow_override=True)
    _kept.append(library)


def _mm(torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def multiply(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        return _product(a, b, None) if _is_large(a, b) else torchs(keys, a, b)

    return multiply


def _addmm(torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def multiply(keys: Any, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        if beta == alpha == 1 and c.shape == b.shape[1:] and c.dtype == a.dtype and _is_large(a, b):
            return _product(a, b, c)
        return torchs(keys, c, a, b, beta=beta, alpha=alpha)

    return multiply


def _is_large(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN pays off; what is not valid is left to torch, which says why."""
    is_plain = a.dtype == b.dtype == torch.float32 and a.dim() == b.dim() == 2 and a.shape[1] == b.shape[0]
    return is_plain and b.numel() >= ENOUGH and a.shape[0] > 1


def _product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """a b + bias, [rows, columns]; oneDNN takes the right matrix by its columns."""
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")


def root(x: Tensor) -> Tensor:
    """The square root of floats of any shape: the nearest number in float32, at most one unit beside it in float64.

    torch's own vector code has the inverse root, and no root.
    """
    return x.double().rsqrt().reciprocal_().to(x.dtype)


def _sqrt(torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def square_root(keys: Any, x: Tensor) -> Tensor:
        return root(x) if x.is_floating_point() else torchs(keys, x)

    return square_root


def _sqrt_in_place(torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def square_root(keys: Any, x: Tensor) -> Tensor:
        return x.copy_(root(x)) if x.is_floating_point() else torchs(keys, x)

    return square_root


def _sqrt_out(torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def square_root(keys: Any, x: Tensor, *, out: Tensor) -> Tensor:
        if not x.is_floating_point() or not out.is_floating_point():
            return torchs(keys, x, out=out)
        return out.resize_(x.shape).copy_(root(x))

    return square_root


def _refused(name: str, _: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def refuse(*_: Any, **__: Any) -> Tensor:
        raise BadInput(
            f"torch.{name.replace('linalg_', 'linalg.')} differs from processor to processor; write the model without it, "
            "or set numerics: native in params.yaml"
        )

    return refuse
