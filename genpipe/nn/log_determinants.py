"""Traces and log-determinants of I + A from products with A alone: exact, by a power series, and by Russian roulette.

A product takes vectors v to vᵀA, so A is never written out: it may be the Jacobian of a network. With ‖A‖₂ < 1

    ln det(I + A) = tr ln(I + A) = Σ_{k ≥ 1} (−1)^{k+1} tr(Aᵏ)/k,

which is ln det B = tr ln B, the form of det(exp A) = exp(tr A) (Su, archives/6377) for B = I + A. With a bound c on ‖A‖₂, what n
terms leave out of d dimensions is at most d (−ln(1 − c) − Σ_{k ≤ n} cᵏ/k). A trace is estimated by tr A = E[vᵀAv] for E[vvᵀ] = I
(Hutchinson, *A stochastic estimator of the trace of the influence matrix*, 1989); all powers share one v.

The series as the likelihood of a network: Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen, *Invertible Residual Networks*, 2019,
arXiv:1811.00995. The roulette: Chen, Behrmann, Duvenaud, Jacobsen, *Residual Flows for Invertible Generative Modeling*, 2019,
arXiv:1906.02735. In nats.

    >>> import torch
    >>> from genpipe.nn.log_determinants import Operator, exact, probes, series
    >>> a = torch.tensor([[[0.5, 0.1], [0.0, 0.25]]], dtype=torch.float64)
    >>> operator = Operator.of_matrix(a)
    >>> round(exact(operator, 2).item(), 6)  # ln 1.5 + ln 1.25
    0.628609
    >>> v = probes(64, a[:, 0])
    >>> abs(series(operator, v, 40) - exact(operator, 2)).item() < 0.1
    True
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genpipe.errors import BadInput

Distribution = Literal["rademacher", "gaussian"]
CLOSED = 3  # dimensions up to which a determinant is written out


class Operator(NamedTuple):
    """A linear map for each of n examples: `product` takes v, [n, *shape], to vᵀA, and ‖A‖₂ ≤ `bound` for each."""

    product: Callable[[Tensor], Tensor]
    bound: float

    @staticmethod
    def of_matrix(a: Tensor) -> "Operator":
        """That of square matrices, [n, dim, dim]."""
        bound = float(torch.linalg.matrix_norm(a.detach(), 2).max())
        return Operator(lambda v: torch.einsum("ni,nij->nj", v, a), bound)

    @staticmethod
    def of_map(x: Tensor, y: Tensor, bound: float, create_graph: bool = False) -> "Operator":
        """The Jacobian of y by x, [n, *shape] both, where row i of y depends on row i of x alone.

        With `create_graph` what is made of the products has gradients.
        """

        def product(v: Tensor) -> Tensor:
            return torch.autograd.grad(y, x, v, create_graph=create_graph, retain_graph=True)[0]

        return Operator(product, bound)


def probes(num: int, like: Tensor, distribution: Distribution = "rademacher") -> Tensor:
    """Random v with E[vvᵀ] = I, [num, *like.shape], drawn with torch's global generator.

    With S = (A + Aᵀ)/2 the variance of vᵀAv is 2 ‖S‖² (Frobenius) for Gaussian v, and 2 (‖S‖² − Σ S_ii²), which is less, for signs.
    """
    shape = (num, *like.shape)
    if distribution == "gaussian":
        return torch.randn(shape, dtype=like.dtype, device=like.device)
    return 2.0 * torch.randint(0, 2, shape, device=like.device).to(like.dtype) - 1


def hutchinson_trace(operator: Operator, v: Tensor) -> Tensor:
    """Unbiased estimates of tr A, [n], the mean over the probes v, [num, n, *shape]; any bound will do."""
    return torch.stack([_inner(operator.product(one), one) for one in v]).mean(0)


def exact(operator: Operator, dim: int, like: Tensor | None = None) -> Tensor:
    """ln |det(I + A)|, [n], from `dim` products; any bound will do.

    `like`, [n, *shape], says how many examples there are, their shape and type; one vector of float64 without it.
    """
    like = torch.zeros(1, dim, dtype=torch.float64) if like is None else like
    units = torch.eye(dim, dtype=like.dtype, device=like.device).view(dim, 1, *like.shape[1:])
    rows = [operator.product(unit.expand_as(like)).flatten(1) for unit in units]
    return log_abs_det(torch.stack(rows, 1) + units.view(dim, dim))


def log_abs_det(matrices: Tensor) -> Tensor:
    """ln |det|, [n], of square matrices, [n, dim, dim]; written out for three dimensions and less."""
    dim = matrices.shape[-1]
    if dim > CLOSED:
        return torch.linalg.slogdet(matrices).logabsdet
    return _determinant(matrices).abs().log()


def _determinant(m: Tensor) -> Tensor:
    """By the first row, [n]."""
    if m.shape[-1] == 1:
        return m[:, 0, 0]
    if m.shape[-1] == 2:
        return m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] * m[:, 1, 0]
    return (m[:, 0] * torch.linalg.cross(m[:, 1], m[:, 2])).sum(1)


def series(operator: Operator, v: Tensor, num_terms: int) -> Tensor:
    """The first terms of the series with estimated traces, [n]: biased by at most `series_error`.

    v: [num, n, *shape], of `probes`. Raises BadInput where the bound is 1 or more: the series need not converge.
    """
    return weighted_series(operator, v, [1.0] * num_terms)


def roulette(operator: Operator, v: Tensor, num_exact: int, goes_on: float = 0.5) -> Tensor:
    """An unbiased estimate of the whole series, [n]: `num_exact` terms, then more as long as a coin says so.

    After the first terms each further one is taken with probability `goes_on` if the one before was, and divided by the
    probability that it is reached. One number is drawn for all examples, with torch's global generator. The variance is sure to be
    finite where bound² < `goes_on`. Raises BadInput where the bound is 1 or more.
    """
    if not 0 < goes_on < 1:
        raise BadInput(f"goes_on: must be between 0 and 1, not {goes_on}")
    more = number_of_terms(float(torch.rand((), dtype=torch.float64)), goes_on)
    return weighted_series(operator, v, roulette_weights(num_exact, more, goes_on))


def roulette_weights(num_exact: int, more: int, goes_on: float) -> list[float]:
    """What the terms are multiplied by where `more` of them follow the first ones: 1 over the probability to reach them."""
    return [1.0] * num_exact + [goes_on**-j for j in range(1, more + 1)]


def number_of_terms(u: float, goes_on: float) -> int:
    """N with P(N ≥ j) = goes_onʲ, of a uniform number u in [0, 1)."""
    return math.floor(math.log1p(-u) / math.log(goes_on))


def series_error(bound: float, num_terms: int, dim: int) -> float:
    """The most, in nats, by which `num_terms` terms with exact traces can be off: d (−ln(1 − c) − Σ_{k ≤ n} cᵏ/k)."""
    _require_contraction(bound)
    return dim * (-math.log1p(-bound) - sum(bound**k / k for k in range(1, num_terms + 1)))


def weighted_series(operator: Operator, v: Tensor, weights: list[float]) -> Tensor:
    """Σ_k weights[k−1] (−1)^{k+1} vᵀAᵏv/k, [n], the mean over the probes."""
    _require_contraction(operator.bound)
    return torch.stack([_along(operator, one, weights) for one in v]).mean(0)


def _along(operator: Operator, v: Tensor, weights: list[float]) -> Tensor:
    total, power = v.new_zeros(len(v)), v
    for k, weight in enumerate(weights, 1):
        power = operator.product(power)
        total = total + (weight * (-1) ** (k + 1) / k) * _inner(power, v)
    return total


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _require_contraction(bound: float) -> None:
    if not bound < 1:
        raise BadInput(
            f"the series of ln det(I + A) needs a norm of A below 1, and its bound is {bound:.6g}; take exact, or scale A"
        )
