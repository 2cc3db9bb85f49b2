"""What models compute of many rows, in fixed chunks: row j is a function of (seed, j, its condition) only."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Decodes, Encodes, Example, NextToken, Samples
from genpipe.data.loader import Data, derived_seed
from genpipe.errors import BadInput
from genpipe.params.blocks import checked_argument

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
    """One example of many; shorter rows of another part are padded on the right with zeros."""
    return {name: _stacked([part[name] for part in parts]) for name in parts[0]}


def _stacked(tensors: list[Tensor]) -> Tensor:
    if tensors[0].dim() < 2:
        return torch.cat(tensors)
    longest = max(tensor.shape[1] for tensor in tensors)
    padding = [0, 0] * (tensors[0].dim() - 2)
    return torch.cat([F.pad(tensor, [*padding, 0, longest - tensor.shape[1]]) for tensor in tensors])


def in_fixed_chunks(make: Callable[[int, Example], Example], n: int, seed: int, given: Example) -> Example:
    """`n` rows of `make`, which is always asked for CHUNK of them; conditions that are missing repeat the first ones."""
    parts: list[Example] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for chunk in range(math.ceil(n / CHUNK)):
            torch.manual_seed(derived_seed(seed, "sample", chunk))
            rows = torch.arange(chunk * CHUNK, (chunk + 1) * CHUNK)
            parts.append(make(CHUNK, {name: value[rows % len(value)] for name, value in given.items()}))
    return {name: value[:n] for name, value in joined(parts).items()}


def draw(
    model: Samples,
    n: int,
    seed: int,
    given: Example = NOTHING,
    how: Mapping[str, Any] = NOTHING,
    where: str = "sample.how.",
) -> Example:
    """`n` examples; number j is the same whatever n is, and whatever the conditions of the others are.

    Raises BadInput for a condition that is missing or that the model does not take, and for an unknown option.
    """
    require_conditions(model, given)
    options = checked_options(model.sample, how, ("n", "given"), where)
    return in_fixed_chunks(lambda rows, part: model.sample(rows, part, **options), n, seed, given)


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


def reconstruct(encoder: Encodes, decoder: Decodes, x: Example) -> Tensor:
    """The images of decode(encode(x)), [n, channels, height, width]."""
    return in_chunks(lambda chunk: decoder.decode(encoder.encode(chunk), chunk)["images"], x)


def interpolate(encoder: Encodes, decoder: Decodes, a: Example, b: Example, num_steps: int) -> Tensor:
    """Images from a to b, [n, num_steps, channels, height, width], on straight lines between codes of unit deviation."""
    start, end = in_chunks(encoder.encode, a), in_chunks(encoder.encode, b)
    weights = torch.linspace(0, 1, num_steps, dtype=start.dtype)
    rows = [torch.lerp(start, end, weight) for weight in weights]
    codes = torch.stack([row / row.std(1, correction=0, keepdim=True) for row in rows], dim=1).flatten(0, 1)
    given = {name: value.repeat_interleave(num_steps, 0) for name, value in a.items() if name != "images"}
    made = in_chunks(lambda x: decoder.decode(x["codes"], x)["images"], {"codes": codes, **given})
    return made.unflatten(0, (rows_of(a), num_steps))
