"""YAML as DVC reads it, with the same parser: the value that is hashed is the value that is used.

PyYAML follows YAML 1.1, where `010` is 8, `on` is true and `1e-4` is text; ruamel.yaml follows 1.2, where they are 10, text
and a number. What is written here is quoted so that both read the same.
"""

from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.resolver import implicit_resolvers

from genpipe.errors import BadInput

VERSION = (1, 2)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """In double quotes where another style would fold its line breaks."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)
for _versions, _tag, _pattern, _first in implicit_resolvers:
    if VERSION in _versions:
        _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def parse(text: str | bytes, where: str) -> Any:
    """The values of a YAML document; BadInput names `where` and the line, also of a key that is there twice."""
    try:
        return YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(
            f"{where}: line {line} is not valid YAML, {error.problem or error.context}; fix that line"
        ) from None
    except (YAMLError, ValueError, KeyError) as error:  # no text, or what its tag cannot hold
        raise BadInput(f"{where}: not valid YAML, {' '.join(str(error).split())}; fix that") from None


def read(path: Path) -> Any:
    """The values of a file; OSError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not valid UTF-8, {error}; save it as UTF-8") from None
    return parse(text, str(path))


def dump(values: Any) -> str:
    """The values as a YAML document, in their order, which every reader reads alike."""
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False)
