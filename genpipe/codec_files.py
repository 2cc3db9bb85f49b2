"""The files that turn text into ids and back, read and checked: beside data of ids, and in a model directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from genpipe.errors import BadState
from genpipe.files import existing, read_json
from genpipe.params.tokenizers import FILE_TOKENIZERS, NormalisationStep, TokenizerName

SPECIAL = ("pad", "start", "end", "sep", "mask")  # their ids follow the vocabulary, in this order
LEXICON, MODEL = "lexicon.tsv", "tokenizer.json"  # copies of the file that defines a tokenizer
KEYS = ("tokenizer", "normalise", "tokenizer_file")  # of codec.json


class About(NamedTuple):
    """What codec.json says: the name of a tokenizer, the steps before it, and the copy of the file that defines it."""

    tokenizer: str
    normalise: tuple[str, ...]
    file: Path | None


def copy_of(tokenizer: str) -> str | None:
    """The name of the copy of the file that defines a tokenizer; None where no file does."""
    if tokenizer not in FILE_TOKENIZERS:
        return None
    return LEXICON if tokenizer == "lexicon" else MODEL


def read_about(directory: Path, remedy: str) -> About:
    """What codec.json of a directory says. It names no file but the copy beside it that its tokenizer has."""
    path = directory / "codec.json"
    about = read_json(existing(path, remedy))
    if not isinstance(about, dict) or not set(KEYS) <= set(about):
        raise BadState(f"{path}: tokenizer, normalise or tokenizer_file are missing; {remedy}")
    name, steps, file = (about[key] for key in KEYS)
    if name not in get_args(TokenizerName):
        raise BadState(
            f"{path}: tokenizer: one of {', '.join(get_args(TokenizerName))}, not {_short(name)}; {remedy}"
        )
    if not isinstance(steps, list) or not all(step in get_args(NormalisationStep) for step in steps):
        known = ", ".join(get_args(NormalisationStep))
        raise BadState(f"{path}: normalise: a list with some of {known}, not {_short(steps)}; {remedy}")
    own = copy_of(name)
    if file != own:
        raise BadState(f"{path}: tokenizer_file: {own} for {name}, not {_short(file)}; {remedy}")
    return About(name, tuple(steps), existing(directory / own, remedy) if own else None)


def read_vocabulary(directory: Path, remedy: str) -> tuple[str, ...]:
    """The tokens of vocabulary.json, whose places are their ids: one or more, distinct."""
    path = directory / "vocabulary.json"
    words = read_json(existing(path, remedy))
    if not isinstance(words, list) or not all(map(_is_text, words)):
        raise BadState(f"{path}: not a list of tokens; {remedy}")
    if not words:
        raise BadState(f"{path}: no token is in it; {remedy}")
    if len(set(words)) < len(words):
        twice = next(word for number, word in enumerate(words) if word in words[:number])
        raise BadState(f"{path}: the token {_short(twice)} is there twice; {remedy}")
    return tuple(words)


def special_facts(size: int) -> dict[str, int]:
    """The number of ids of a vocabulary of this size, and the special ones."""
    ids = {name: size + place for place, name in enumerate(SPECIAL)}
    return {"num_tokens": size + len(SPECIAL)} | ids


def require_codec(directory: Path, facts: Mapping[str, Any], remedy: str) -> None:
    """Raise BadState unless codec.json and vocabulary.json are sound and `facts` agree with the vocabulary."""
    read_about(directory, remedy)
    size = len(read_vocabulary(directory, remedy))
    if facts["num_tokens"] - len(SPECIAL) != size:
        raise BadState(
            f"{directory / 'vocabulary.json'}: {size} tokens, and data.json knows "
            f"{facts['num_tokens'] - len(SPECIAL)}; {remedy}"
        )
    for name, number in special_facts(size).items():
        if facts.get(name) != number:
            raise BadState(
                f"{directory / 'data.json'}: facts: {name} is {number} after {size} tokens, "
                f"not {_short(facts.get(name))}; {remedy}"
            )


def _is_text(value: Any) -> bool:
    """Whether a value is a text that can be written; JSON also has halves of characters."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))


def _short(value: Any) -> str:
    return f"{value!r:.60}"
