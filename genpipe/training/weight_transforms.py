"""Techniques on the weights: projections after a step, and torch's parametrisations inside the graph.

A projection moves the stored weights and the optimiser does not know; a parametrisation is differentiated through.
Both treat a weight as a matrix with a row for each output: what leaves a layer at one position is a product with it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from genpipe.errors import BadInput
from genpipe.nn.operator_norm import ConvolutionNorm
from genpipe.params.techniques import Bounded, Exact, Normalisation, WeightTechnique

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)  # their outputs are dimension 1

Projection = Callable[[Tensor], Tensor]  # of matrices, [output, input]


def output_dim(module: nn.Module) -> int:
    """The dimension of a module's weights that counts its outputs."""
    return 1 if isinstance(module, TRANSPOSED) else 0


def output_dims(modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter]) -> list[int]:
    """The dimension of each parameter that counts the outputs of its module."""
    dims: dict[Tensor, int] = {}
    for module in modules:
        for part in module.modules():
            dims.update({parameter: output_dim(part) for parameter in part.parameters(recurse=False)})
    return [dims[parameter] for parameter in parameters]


def largest_singular_value(weight: Tensor) -> Tensor:
    """Of a matrix, exact: power iteration from a vector orthogonal to the largest one would find another."""
    return torch.linalg.matrix_norm(weight, 2)


def spectral(weight: Tensor, bound: float) -> Tensor:
    """The matrix scaled down to a largest singular value of `bound`, where it has a larger one.

    Spectral Norm Regularization for Improving the Generalizability of Deep Learning (Yoshida & Miyato, 2017,
    arXiv:1705.10941) punishes what this forbids.
    """
    return weight / (largest_singular_value(weight) / bound).clamp(min=1)


def ball(weight: Tensor, bound: float) -> Tensor:
    """The matrix with rows scaled down to norm `bound`, where they are longer.

    Rank, Trace-Norm and Max-Norm (Srebro & Shraibman, 2005).
    """
    return weight / (weight.norm(dim=1, keepdim=True) / bound).clamp(min=1)


def clip(weight: Tensor, bound: float) -> Tensor:
    """Weights of any shape with entries in ±bound.

    Wasserstein GAN (Arjovsky, Chintala & Bottou, 2017, arXiv:1701.07875).
    """
    return weight.clamp(-bound, bound)


def unit(weight: Tensor) -> Tensor:
    """The matrix with rows of norm 1; rows of zeros stay."""
    norm = weight.norm(dim=1, keepdim=True)
    return weight / torch.where(norm > 0, norm, 1)


def orthogonal(weight: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows, or columns where there are fewer: its polar factor.

    Computing the Polar Decomposition, with Applications (Higham, 1986).
    """
    left, _, right = torch.linalg.svd(weight, full_matrices=False)
    return left @ right


def projection(technique: WeightTechnique) -> Projection:
    """The function that a technique names."""
    if isinstance(technique, Bounded):
        return partial(
            {"spectral": spectral, "ball": ball, "clip": clip}[technique.do], bound=technique.bound
        )
    return {"unit": unit, "orthogonal": orthogonal}[technique.do]


def project(weight: Tensor, technique: WeightTechnique, dim: int) -> None:
    """Project a weight in place, as a matrix with a row for each of the outputs that dimension `dim` counts."""
    with torch.no_grad():
        rows = torch.atleast_1d(weight).transpose(0, dim)
        rows.copy_(projection(technique)(rows.reshape(len(rows), -1)).reshape(rows.shape))


def refuse_vector(weight: Tensor, technique: Bounded | Exact, name: str, where: str) -> None:
    """Only clipping makes sense of a vector."""
    if weight.dim() < 2 and technique.do != "clip":
        raise BadInput(
            f"{where}: {technique.do} needs matrices or kernels, {technique.parameters!r} is in the name of {name}, a "
            "vector; end the pattern with weight$"
        )


def normalise(recipe: nn.Module, rules: Mapping[str, Normalisation]) -> None:
    """Compute the weights of a new recipe from others: W / its largest singular value, g W / |W|, or orthogonal ones.

    W is the matrix with a row for each output: a kernel, [out, in, k, k], is [out, in k k]. So `spectral` bounds that
    matrix (the map that a convolution of stride 1 makes of a picture is at most k times as steep), `weight` has a g and
    a norm for each output, and `orthogonal` makes orthonormal rows, or columns where there are fewer.
    `spectral_convolution` divides a kernel by the largest singular value of that map, of whole pictures, and is `spectral`
    for a matrix.

    `rules` maps regular expressions on names of parameters to torch's parametrisations; BadInput where one fits no name, a
    name two, or what it fits is a vector, has no direction (zeros), or belongs to two modules. Spectral norms start from
    vectors drawn with torch's global generator: call this under the seed that made the recipe. Afterwards the parameters
    have other names: `x.weight` is `x.parametrizations.weight.original`.

    Spectral Normalization for Generative Adversarial Networks (Miyato, Kataoka, Koyama & Yoshida, 2018,
    arXiv:1802.05957); Weight Normalization (Salimans & Kingma, 2016, arXiv:1602.07868).
    """
    fitted = _fitted(recipe, rules)
    for name, rule in fitted.items():
        path, _, attribute = name.rpartition(".")
        module = recipe.get_submodule(path)
        _refuse_undirected(name, as_matrix(getattr(module, attribute).detach(), output_dim(module)), rule)
        if rule == "orthogonal":
            _make_orthogonal(module, attribute)
        elif rule == "spectral_convolution" and isinstance(module, nn.Conv2d):
            size = _input_size(module, name)
            parametrize.register_parametrization(module, attribute, ConvolutionNorm(module, size))
        elif rule == "weight":
            parametrizations.weight_norm(module, attribute, dim=output_dim(module))
        else:
            parametrizations.spectral_norm(module, attribute, dim=output_dim(module))


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """A weight as a matrix with a row for each of the outputs that dimension `dim` counts."""
    return weight.transpose(0, dim).flatten(1)


class _OfKernel(nn.Module):
    """A parametrisation of the matrix of a kernel; torch's own takes a kernel for a batch of k x k matrices."""

    of_matrix: Any  # torch's class is private

    def __init__(self, of_matrix: nn.Module, weight: Tensor, dim: int) -> None:
        super().__init__()
        self.of_matrix = of_matrix
        self._dim = dim
        self._shape = weight.transpose(0, dim).shape

    def forward(self, original: Tensor) -> Tensor:
        return self.of_matrix(original).view(self._shape).transpose(0, self._dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self.of_matrix.right_inverse(as_matrix(weight, self._dim))


def _make_orthogonal(module: nn.Module, attribute: str) -> None:
    weight, dim = getattr(module, attribute), output_dim(module)
    if weight.dim() == 2:
        parametrizations.orthogonal(module, attribute)
        return
    # torch gives its parametrisation of a matrix only on a module that has one
    holder = nn.Module()
    holder.weight = nn.Parameter(as_matrix(weight.detach(), dim).clone())
    parametrizations.orthogonal(holder)
    of_matrix = holder.get_submodule("parametrizations.weight.0")
    parametrize.register_parametrization(module, attribute, _OfKernel(of_matrix, weight, dim))


def _input_size(module: nn.Conv2d, name: str) -> tuple[int, int]:
    """Height and width of what a convolution gets, which its network noted."""
    size = getattr(module, "input_size", None)
    if size is None or module.padding_mode != "zeros":
        raise BadInput(
            f"train.normalisations: spectral_convolution of {name}: its network does not say how large a picture it gets; "
            "take spectral, or call note_input_sizes in the network"
        )
    return size


def _refuse_undirected(name: str, weight: Tensor, rule: Normalisation) -> None:
    """Raise where the matrix of a weight has nothing to normalise: torch gives NaN there, or zeros, and no error."""
    where = f"train.normalisations: {rule} of {name}"
    norms = weight.norm(dim=1)
    zeros = int((norms == 0).sum())
    if zeros and (rule == "weight" or zeros == len(weight)):
        raise BadInput(
            f"{where}: {zeros} of its {len(weight)} outputs have weights that are all 0 at the start, which have no "
            "direction; start them at random, or leave the parameter out of the pattern"
        )
    if rule != "orthogonal":
        return
    if weight.numel() == 1:
        raise BadInput(f"{where}: a matrix of one number can only be 1 or -1, and never trains; leave it out")
    rank, full = int(torch.linalg.matrix_rank(weight)), min(weight.shape)
    if rank < full:
        raise BadInput(
            f"{where}: its matrix of {' x '.join(map(str, weight.shape))} starts with rank {rank}, and an orthogonal one "
            f"has {full}; start it at random, or leave it out"
        )


def _fitted(recipe: nn.Module, rules: Mapping[str, Normalisation]) -> dict[str, Normalisation]:
    """The rule of each name that has one."""
    fitted: dict[str, Normalisation] = {}
    idle = set(rules)
    names = dict(recipe.named_parameters(remove_duplicate=False))
    for name, parameter in names.items():
        found = [pattern for pattern in rules if re.search(pattern, name)]
        if found:
            _refuse_odd(name, parameter, found, list(names.values()))
            fitted[name] = rules[found[0]]
        idle -= set(found)
    for pattern in sorted(idle):
        raise BadInput(
            f"train.normalisations: {pattern!r} is in no parameter name of {type(recipe).__name__}; "
            f"there is: {', '.join(names)}"
        )
    return fitted


def _refuse_odd(name: str, parameter: Tensor, found: Sequence[str], everything: Sequence[Tensor]) -> None:
    """What cannot be normalised, or not in one way."""
    where = f"train.normalisations: {found[0]!r}"
    if len(found) > 1:
        raise BadInput(
            f"{where} and {found[1]!r} are both in the name of the parameter {name}; make them exclude each other"
        )
    if parameter.dim() < 2:
        raise BadInput(
            f"{where}: must be a matrix or a kernel, {name} is a vector; end the pattern with weight$"
        )
    if sum(parameter is other for other in everything) > 1:
        raise BadInput(f"{where}: {name} is shared by two modules, of which one would not know; leave it out")
