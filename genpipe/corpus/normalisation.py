"""Normalisation: what is done to a text before it is cut into tokens, as an ordered list of named steps."""

import functools
import importlib.metadata
import unicodedata
from collections.abc import Callable, Sequence

from genpipe.errors import BadInput

Normalise = Callable[[str], str]
Normalisation = tuple[str, ...]

_CONFLICTS = (("nfc", "nfkc"), ("lower", "casefold"))
_HALF_WIDTH = {0xFF01 + offset: 0x21 + offset for offset in range(94)} | {0x3000: 0x20}


def normaliser(names: Sequence[str]) -> Normalise:
    """The named steps one after the other, as one function; without names the text stays as it is."""
    return _normaliser(tuple(names))


def normalisation_version(names: Sequence[str]) -> str:
    """The steps in order, and what they depend on besides genpipe's code: Unicode's tables, OpenCC's dictionary."""
    _check(names)
    needs = []
    if set(names) & {"nfc", "nfkc", "lower", "casefold"}:
        needs.append(f"unicode {unicodedata.unidata_version}")
    if "simplified" in names:
        needs.append(f"opencc {importlib.metadata.version('opencc')}")
    return " ".join(["+".join(names) or "-", *needs])


@functools.cache
def _normaliser(names: Normalisation) -> Normalise:
    _check(names)
    steps = [_STEPS[name] for name in names]
    if len(steps) == 1:
        return steps[0]
    return lambda text: functools.reduce(lambda normal, step: step(normal), steps, text)


def _check(names: Sequence[str]) -> None:
    for name in names:
        if name not in _STEPS:
            raise BadInput(f"normalise: no step {name!r}; name some of: {', '.join(_STEPS)}")
        if names.count(name) > 1:
            raise BadInput(f"normalise: {name} is there {names.count(name)} times; name it once")
    for first, second in _CONFLICTS:
        if first in names and second in names:
            raise BadInput(
                f"normalise: {first} and {second} exclude each other; {second} does more, drop {first}"
            )


def _full_width(text: str) -> str:
    return text.translate(_HALF_WIDTH)


@functools.cache
def _converter() -> Normalise:
    import opencc  # loads its dictionary, which cannot be sent to another process

    return opencc.OpenCC("t2s").convert


def _simplified(text: str) -> str:
    return _converter()(text)


_STEPS: dict[str, Normalise] = {
    "nfc": functools.partial(unicodedata.normalize, "NFC"),
    "nfkc": functools.partial(unicodedata.normalize, "NFKC"),
    "full_width": _full_width,
    "lower": str.lower,
    "casefold": str.casefold,
    "simplified": _simplified,
}
