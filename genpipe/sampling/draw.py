"""What models compute of many rows, in fixed chunks: row j is a function of (seed, j, its condition) only."""

import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Encodes, Example, Invertible, NextToken, Samples
from genpipe.data.loader import Data, derived_seed
from genpipe.errors import BadInput
from genpipe.nn.pixels import scaled
from genpipe.params.blocks import checked_argument
from genpipe.sampling.processes import spread

CHUNK = 100  # rows computed at once; fixed, since the size of a matrix product may change its last bits
NOTHING: Example = {}


def rows_of(x: Example) -> int:
    """The number of examples."""
    return len(next(iter(x.values())))


def chunks(x: Example) -> Iterator[Example]:
    """The rows of `x`, a fixed number at a time."""
    for start in range(0, rows_of(x), CHUNK):
        yield {name: value[start : start + CHUNK] for name, value in x.items()}


def in_chunks(function: Callable[[Example], Tensor], x: Example) -> Tensor:
    """`function` over all rows, a fixed number at a time."""
    with torch.no_grad():
        return torch.cat([function(chunk) for chunk in chunks(x)])


def joined(parts: list[Example]) -> Example:
    """One example of many; shorter rows of another part, and fewer passages, are padded on the right with zeros."""
    return {name: _stacked([part[name] for part in parts]) for name in parts[0]}


def _stacked(tensors: list[Tensor]) -> Tensor:
    sizes = [max(tensor.shape[dim] for tensor in tensors) for dim in range(1, tensors[0].dim())]
    return torch.cat([_wide(tensor, sizes) for tensor in tensors])


def _wide(tensor: Tensor, sizes: list[int]) -> Tensor:
    """A tensor whose dimensions but the first have these sizes; zeros behind what is there."""
    missing = [size - have for size, have in zip(sizes, tensor.shape[1:], strict=True)]
    return F.pad(tensor, [pad for more in reversed(missing) for pad in (0, more)]) if any(missing) else tensor


def in_fixed_chunks(
    make: Callable[[int, Example], Example], n: int, seed: int, given: Example, processes: int = 1
) -> Example:
    """`n` rows of `make`, which is always asked for CHUNK of them; conditions that are missing repeat the first ones.

    The same on any number of processes. Raises BadInput, after the first CHUNK, where this machine cannot hold all of them.
    """

    def made(chunk: int) -> Example:
        torch.manual_seed(derived_seed(seed, "sample", chunk))
        rows = torch.arange(chunk * CHUNK, (chunk + 1) * CHUNK)
        return make(CHUNK, {name: value[rows % len(value)] for name, value in given.items()})

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        first_part = made(0)
        _require_memory(first_part, n)
        parts = [first_part, *spread(made, range(1, math.ceil(n / CHUNK)), processes)]
    return {name: value[:n] for name, value in joined(parts).items()}


def _require_memory(part: Example, n: int) -> None:
    """BadInput where `n` rows like those of `part`, and one copy of them, are more than this machine has memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = 2 * n * sum(value.nbytes for value in part.values()) // rows_of(part)
    if needed > memory:
        raise BadInput(
            f"{n:,} samples need {needed / 1e9:,.0f} GB of memory, and this machine has {memory / 1e9:,.0f}; draw fewer at "
            "once, each time with another seed"
        )


def draw(
    model: Samples,
    n: int,
    seed: int,
    given: Example = NOTHING,
    how: Mapping[str, Any] = NOTHING,
    where: str = "sample.how.",
    processes: int = 1,
) -> Example:
    """`n` examples; number j is the same whatever n is, and whatever the conditions of the others are.

    Raises BadInput for a condition that is missing or that the model does not take, and for an unknown option.
    """
    require_conditions(model, given)
    options = checked_options(model.sample, how, ("n", "given"), where)
    return in_fixed_chunks(lambda rows, part: model.sample(rows, part, **options), n, seed, given, processes)


def require_conditions(model: Samples | NextToken, given: Example) -> None:
    """Raise unless `given` has just the conditions that the model takes."""
    name = type(model).__name__
    takes = ", ".join(model.given) or "none"
    for condition in given:
        if condition not in model.given:
            raise BadInput(f"{name} does not take the condition {condition!r}; it takes: {takes}")
    for condition in model.given:
        if condition not in given:
            raise BadInput(f"{name} takes the condition {condition!r}, which is missing; it takes: {takes}")


def checked_options(
    function: Callable[..., Any], how: Mapping[str, Any], taken: tuple[str, ...], where: str = "sample.how."
) -> dict[str, Any]:
    """`how`, checked against the signature of `function`, without the arguments `taken`; errors begin with `where`."""
    arguments = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in taken
    }
    for key in how:
        if key not in arguments:
            known = ", ".join(arguments) or "none"
            raise BadInput(f"{where}{key}: not an option of {function.__qualname__}; its options: {known}")
    return {
        key: checked_argument(f"{where}{key}", value, arguments[key].annotation) for key, value in how.items()
    }


def conditions(model: Samples | NextToken, data: Data, n: int, split: str = "test") -> Example:
    """The conditions that a model takes, of rows 0 to n − 1 of a split, from the beginning again where there are fewer."""
    if not model.given:
        return {}
    test = first(data, n, split)
    missing = [name for name in model.given if name not in test]
    if missing:
        raise BadInput(
            f"{type(model).__name__} takes the condition {missing[0]!r}, which its data does not have; it has: {', '.join(test)}"
        )
    return {name: test[name] for name in model.given}


def first(data: Data, n: int, split: str = "test") -> Example:
    """The first `n` rows of a split, from the beginning again where there are fewer."""
    parts: list[Example] = []
    for part in data.split(split):
        parts.append(part)
        if sum(map(rows_of, parts)) >= n:
            break
    if not parts:
        raise BadInput(f"the split {split} has no rows; check the source of the data")
    x = joined(parts)
    return {name: value[torch.arange(n) % len(value)] for name, value in x.items()}


def whole(data: Data, split: str) -> Example:
    """All rows of a split."""
    parts = list(data.split(split))
    if not parts:
        raise BadInput(f"the split {split} has no rows; check the source of the data")
    return joined(parts)


def as_values(x: Example) -> Example:
    """Images as the values in [0, 1] that models take; all else as it is."""
    return {name: scaled(value) if name == "images" else value for name, value in x.items()}


class Coder(NamedTuple):
    """The two ways between examples and codes, [n, latent]."""

    encode: Callable[[Example], Tensor]
    decode: Callable[[Tensor, Example], Example]


def coder_of(model: Any) -> Coder | None:
    """How a model encodes and decodes; None where it does not do both. The code of a flow are its latents."""
    if isinstance(model, Encodes) and isinstance(model, Decodes):
        return Coder(model.encode, model.decode)
    if isinstance(model, Invertible):
        return Coder(lambda x: model.forward(x)[0], model.inverse)
    return None


def decoded(decode: Callable[[Tensor, Example], Example], codes: Tensor, given: Example) -> Tensor:
    """The images of codes, [n, latent], each under its row of the conditions, [n, channels, height, width]."""
    x = {"codes": codes, **{name: value for name, value in given.items() if name != "images"}}
    return in_chunks(lambda chunk: decode(chunk["codes"], chunk)["images"], x)


def reconstruct(encoder: Encodes, decoder: Decodes, x: Example) -> Tensor:
    """The images of decode(encode(x)), [n, channels, height, width]."""
    return in_chunks(lambda chunk: decoder.decode(encoder.encode(chunk), chunk)["images"], x)


def interpolate(
    decode: Callable[[Tensor, Example], Example], start: Tensor, end: Tensor, given: Example, num_steps: int
) -> Tensor:
    """Images on the way between codes, [n, latent], under the conditions of the first: [n, num_steps, channels, height, width]."""
    codes = spherical(start, end, num_steps).flatten(0, 1)
    repeated = {name: value.repeat_interleave(num_steps, 0) for name, value in given.items()}
    return decoded(decode, codes, repeated).unflatten(0, (len(start), num_steps))


def spherical(start: Tensor, end: Tensor, num_steps: int) -> Tensor:
    """Points on the way between codes, [n, latent], at equal angles, lengths changing evenly: [n, num_steps, latent].

    Spherical linear interpolation (Shoemake, 1985; for latent codes White, 2016, arXiv:1609.04468). The middle of a straight
    line between Gaussian codes is shorter than any code that a decoder was trained on. Standardised codes stay so.
    """
    rows = [_arc(a, b, num_steps) for a, b in zip(start.double(), end.double(), strict=True)]
    return torch.stack(rows).to(start.dtype)


def _arc(a: Tensor, b: Tensor, num_steps: int) -> Tensor:
    """[num_steps, latent]; a straight line where a code is 0, or where both point the same way or opposite ways."""
    lengths = math.sqrt(float(a @ a)), math.sqrt(float(b @ b))
    product = lengths[0] * lengths[1]
    # the functions of Python's math are those of the C library: the same bits on all processors that portable is for
    angle = math.acos(max(-1.0, min(1.0, float(a @ b) / product))) if product else 0.0
    shares = [step / (num_steps - 1) for step in range(num_steps)]
    if math.sin(angle) < 1e-6:
        return torch.stack([(1 - t) * a + t * b for t in shares])
    return torch.stack([_between(a / lengths[0], b / lengths[1], angle, lengths, t) for t in shares])


def _between(a: Tensor, b: Tensor, angle: float, lengths: tuple[float, float], t: float) -> Tensor:
    """The point at the share `t` of the angle between directions, [latent]."""
    length = (1 - t) * lengths[0] + t * lengths[1]
    weights = [length * math.sin(share * angle) / math.sin(angle) for share in (1 - t, t)]
    return weights[0] * a + weights[1] * b
