"""Square roots whose bits do not depend on the processor."""

from torch import Tensor


def square_root(x: Tensor) -> Tensor:
    """The root of each element, 0 or more, of any shape; at most one unit in the last place beside the nearest number.

    torch.sqrt rounds otherwise on AMD than on Intel, in MKL's vector library; rsqrt and division are torch's own.
    """
    return x.rsqrt().reciprocal_()
