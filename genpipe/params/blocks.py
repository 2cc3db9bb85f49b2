"""What every block of params.yaml is made of."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from genpipe.errors import BadInput


class Block(BaseModel):
    """A block of params.yaml: immutable, finite numbers, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _safe_name(name: str) -> str:
    # a tag of Git that GTO reads is made of it: GTO wants a letter or digit at both ends
    if not re.fullmatch(r"[a-z0-9]([a-z0-9_]{,62}[a-z0-9])?", name):
        raise ValueError(
            f"a name is made of a-z, 0-9 and _, begins and ends with a letter or digit, and has at most 64 of them, not {name!r}"
        )
    return name


def _pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a valid regular expression: {error}") from None
    return pattern


def _relative_path(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"a path stays inside the project and is relative, not {path!r}")
    return path


def _one_of_equals(value: Any) -> Any:
    """1 for 1, 1.0 and true alike: DVC takes them for equal, so nothing may come out differently for them."""
    if isinstance(value, dict):
        return {key: _one_of_equals(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_one_of_equals(item) for item in value]
    is_whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole else value


Name = Annotated[str, AfterValidator(_safe_name)]
RelativePath = Annotated[str, AfterValidator(_relative_path)]
Pattern = Annotated[str, AfterValidator(_pattern)]
DecayRate = Annotated[float, Field(ge=0, lt=1)]
Free = Annotated[Any, AfterValidator(_one_of_equals)]  # a value whose type another part of genpipe knows
Count = Annotated[int, Field(ge=1)]
Factor = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


def checked_argument(where: str, value: Any, kind: Any) -> Any:
    """`value` as the annotation `kind` of an argument has it; BadInput that begins with `where` where it does not fit."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise BadInput(f"{where}: {error.errors()[0]['msg']}, not {value!r}") from None
