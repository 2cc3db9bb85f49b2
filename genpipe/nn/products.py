"""Products of matrices by oneDNN: the same bits on every processor, in half the time of MKL's compatible branch."""

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

# Elements of the right matrix below which a call of oneDNN costs more than it saves. The left one, whose rows are examples,
# does not count: a row must not depend on how many there are.
ENOUGH = 1 << 14


@functools.cache
def through_onednn() -> None:
    """Let torch's products of large float32 matrices on the CPU go through oneDNN, in this process, from now on.

    torch offers that for reduced precision only, so two operations get another kernel below autograd: derivatives of any
    order remain torch's own.
    """
    mm, addmm = (torch.library.get_kernel(f"aten::{name}", "CPU") for name in ("mm", "addmm"))

    def multiply(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        return _product(a, b, None) if _is_large(a, b) else mm.call_boxed(keys, a, b)

    def multiply_and_add(
        keys: Any, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
    ) -> Tensor:
        if c.dim() == 1 and beta == 1 and alpha == 1 and c.dtype == a.dtype and _is_large(a, b):
            return _product(a, b, c)
        return addmm.call_boxed(keys, c, a, b, beta=beta, alpha=alpha)

    with warnings.catch_warnings(action="ignore"):  # that the operations had kernels
        library = torch.library.Library("aten", "IMPL")
        library.impl("mm", multiply, "CPU", with_keyset=True, allow_override=True)
        library.impl("addmm", multiply_and_add, "CPU", with_keyset=True, allow_override=True)
    _kept.append(library)


_kept: list[torch.library.Library] = []  # a library that is collected takes its kernels with it


def _is_large(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN pays off; what is not valid is left to torch, which says why."""
    is_plain = a.dtype == b.dtype == torch.float32 and a.dim() == b.dim() == 2 and a.shape[1] == b.shape[0]
    return is_plain and b.numel() >= ENOUGH and a.shape[0] > 1


def _product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """a b + bias, [rows, columns]; oneDNN takes the right matrix by its columns."""
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")
