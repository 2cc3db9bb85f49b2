"""Kernels whose bits do not depend on the processor, in place of those of MKL that do.

The settings of genpipe/numerics.py leave MKL two ways to follow the maker of a processor: its vector library, and products
of matrices, whose compatible branch is the same everywhere but takes twice the time of oneDNN. Each operation gets its other
kernel below autograd, so that derivatives of any order remain torch's own.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpipe import numerics
from genpipe.errors import BadInput

# Elements of the right matrix below which a call of oneDNN costs more than it saves. The left one, whose rows are examples,
# does not count: a row must not depend on how many there are.
ENOUGH = 1 << 14
REFUSED = (  # MKL's, and without another kernel
    *(f"{name}{form}" for name in ("acos", "asin", "atan", "tan") for form in ("", "_", ".out")),
    "linalg_lstsq",
    "linalg_lstsq.out",
)

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
    made: dict[str, Callable[..., Callable[..., Tensor]]] = {
        "mm": _mm,
        "addmm": _addmm,
    }
    for name, (function, dtypes) in FUNCTIONS.items():
        made |= _forms((name, f"{name}_", f"{name}.out"), function, dtypes)
    # torch takes MKL's root for an exponent of 1/2
    made |= _forms(("pow.Tensor_Scalar", "pow_.Scalar", "pow.Tensor_Scalar_out"), *FUNCTIONS["sqrt"], 0.5)
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
    """a b + bias, [rows, columns]; oneDNN takes the right matrix by its columns, and any bias for one without gaps."""
    there = None if bias is None else bias.contiguous()
    return torch.ops.mkldnn._linear_pointwise(_lined_up(a), _lined_up(b).t(), there, "none", [], "")


def _lined_up(x: Tensor) -> Tensor:
    """The same matrix without gaps in memory: oneDNN takes up to a thousand times as long for any other one."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


def root(x: Tensor) -> Tensor:
    """The square root of floats of any shape, the nearest number: NumPy takes the processor's own, which IEEE 754 defines."""
    made = torch.empty_like(x)
    with np.errstate(invalid="ignore"):
        np.sqrt(x.detach().resolve_neg().numpy(), out=made.numpy())
    return made


def logarithm(x: Tensor, base: float = math.e) -> Tensor:
    """The logarithm of floats of any shape, at most three units in the last place beside the nearest number in float64.

    x = m 2^e, where m - 1 is exact, and log1p is torch's own.
    """
    mantissa, exponent = torch.frexp(x.double())
    is_low = mantissa < 0.5**0.5
    part = torch.where(is_low, 2 * mantissa, mantissa).sub_(1).log1p_()
    whole = (exponent - is_low.to(exponent.dtype)).double()
    return part.div_(math.log(base)).add_(whole, alpha=math.log(2, base) if base != 2 else 1).to(x.dtype)


# float32 log is torch's own already
FUNCTIONS: Mapping[str, tuple[Callable[[Tensor], Tensor], tuple[torch.dtype, ...]]] = {
    "sqrt": (root, (torch.float32, torch.float64)),
    "log": (logarithm, (torch.float64,)),
    "log2": (functools.partial(logarithm, base=2), (torch.float32, torch.float64)),
    "log10": (functools.partial(logarithm, base=10), (torch.float32, torch.float64)),
}


def _forms(
    names: tuple[str, str, str],
    function: Callable[[Tensor], Tensor],
    dtypes: tuple[torch.dtype, ...],
    *options: float,
) -> dict[str, Callable[..., Callable[..., Tensor]]]:
    """The three forms of an elementary function, with these options: a new tensor, in place, and into another tensor."""

    def floats(x: Tensor, given: tuple[Any, ...]) -> Tensor | None:
        """Of what the function is taken: integers as floats; None where torch's own kernel will do."""
        if not x.is_floating_point() and not x.is_complex():
            x = x.to(torch.get_default_dtype())
        return x if x.dtype in dtypes and given == options else None

    def plain(torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def compute(keys: Any, x: Tensor, *given: Any) -> Tensor:
            taken = floats(x, given)
            return torchs(keys, x, *given) if taken is None else function(taken)

        return compute

    def in_place(torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def change(keys: Any, x: Tensor, *given: Any) -> Tensor:
            is_ours = x.dtype in dtypes and given == options
            return x.copy_(function(x)) if is_ours else torchs(keys, x, *given)

        return change

    def into(torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def write(keys: Any, x: Tensor, *given: Any, out: Tensor) -> Tensor:
            taken = floats(x, given)
            if taken is None or not torch.can_cast(taken.dtype, out.dtype):
                return torchs(keys, x, *given, out=out)
            return out.resize_(x.shape).copy_(function(taken))

        return write

    return dict(zip(names, (plain, in_place, into), strict=True))


def _refused(name: str, _: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def refuse(*_: Any, **__: Any) -> Tensor:
        raise BadInput(
            f"torch.{name.removesuffix('.out').replace('linalg_', 'linalg.').rstrip('_')} differs from processor to processor; write the model without it, "
            "or set numerics: native in params.yaml"
        )

    return refuse
