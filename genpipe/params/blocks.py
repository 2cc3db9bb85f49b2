"""What every block of params.yaml is made of."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Block(BaseModel):
    """A block of params.yaml: immutable, finite numbers, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _safe_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise ValueError(f"a name is made of a-z, 0-9 and _, not {name!r}")
    return name


def _pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"wanted a regular expression, {pattern!r} is none: {error}") from None
    return pattern


def _relative_path(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"a path stays inside the project and is relative, not {path!r}")
    return path


Name = Annotated[str, AfterValidator(_safe_name)]
RelativePath = Annotated[str, AfterValidator(_relative_path)]
Pattern = Annotated[str, AfterValidator(_pattern)]
DecayRate = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Factor = Annotated[float, Field(ge=0)]
