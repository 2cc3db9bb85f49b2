"""Chinese in two scripts: a person writes in either, a vocabulary has one.

A text is converted once, from the script that it is in, and an answer once back: characters that one script tells apart and the other
does not (發 and 髮 are 发) come out differently when a text goes to and fro.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

Script = Literal["simplified", "traditional", "either"]


def simplified(text: str) -> str:
    """A text in simplified characters, phrase by phrase (OpenCC, t2s)."""
    return _converter("t2s").convert(text)


def traditional(text: str) -> str:
    """A text in traditional characters, phrase by phrase (OpenCC, s2t)."""
    return _converter("s2t").convert(text)


def script_of(text: str) -> Script:
    """The script of a text: traditional where a character has a simplified form, else simplified where one has a traditional form."""
    if simplified(text) != text:
        return "traditional"
    return "simplified" if traditional(text) != text else "either"


def script_of_all(tokens: Sequence[str]) -> Script:
    """The script of most tokens of a vocabulary that only one script has."""
    only_traditional = sum(simplified(token) != token for token in tokens)
    only_simplified = sum(traditional(token) != token for token in tokens)
    if only_traditional == only_simplified:
        return "either"
    return "traditional" if only_traditional > only_simplified else "simplified"


def converted(text: str, script: Script) -> str:
    """A text in a script, converted where it is in the other one; character by character where a phrase would change its length."""
    if script == "either" or script_of(text) in (script, "either"):
        return text
    convert = simplified if script == "simplified" else traditional
    whole = convert(text)
    return whole if len(whole) == len(text) else "".join(convert(character)[0] for character in text)


class Reader:
    """Texts in the characters of a vocabulary, whose tokens stand in the order of their frequency."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.script: Script = script_of_all(vocabulary)
        self._known = frozenset(vocabulary)
        self._forms: dict[str, str] = {}
        for token in vocabulary:
            self._forms.setdefault(simplified(token), token)

    def read(self, text: str) -> str:
        """A text in the script of the vocabulary; a character that it lacks becomes its most frequent variant there, if there is one."""
        return "".join(map(self._character, text, converted(text, self.script)))

    def _character(self, original: str, character: str) -> str:
        if character in self._known:
            return character
        return original if original in self._known else self._forms.get(simplified(character), character)


@functools.cache
def _converter(name: str) -> Any:
    import opencc  # loads its dictionary

    return opencc.OpenCC(name)
