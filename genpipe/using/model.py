"""A trained model as people name it, what it knows of its data, and the conditions that it takes."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpipe.assembly import keep_freed_memory, load_trained
from genpipe.capabilities import NextToken, Samples
from genpipe.corpus.codec import Codec
from genpipe.data.texts import padded
from genpipe.errors import BadInput
from genpipe.sampling.draw import require_conditions

MANY = 20  # names of classes that an error lists at most
HOW = "--how "  # how errors call an option


@dataclass(frozen=True)
class Using:
    """A trained model, what it knows of its data, and its codec where it reads or writes text."""

    recipe: Any
    kind: str
    facts: Mapping[str, Any]
    codec: Codec | None
    directory: Path

    @property
    def name(self) -> str:
        """What errors call the model."""
        return type(self.recipe).__name__

    def text(self) -> Codec:
        """The codec. Raises BadInput where the model has none."""
        if self.codec is None:
            raise BadInput(f"{self.name} neither reads nor writes text: it was trained on {self.kind}")
        return self.codec


@contextlib.contextmanager
def found(root: Path, model: str) -> Iterator[Path]:
    """The directory of a model: a recipe of the project that is trained, a directory, or a version of the registry.

    A version is fetched for as long as the block lasts. Raises BadInput where there is no such model.
    """
    trained = root / "artifacts" / "models" / model
    for directory in (Path(model),) if "/" in model else (trained, Path(model)):
        if directory.is_dir():
            yield directory.resolve()
            return
    if "@" not in model:
        raise BadInput(
            f"{model}: no such directory; name a recipe that is trained, the directory of a trained model, as "
            "artifacts/models/NAME, or a version of the registry, as NAME@prod"
        )
    from genpipe.registry.pull import pull
    from genpipe.registry.tags import read_model
    from genpipe.registry.trace import split_name

    name, version = split_name(model)
    if version is None:
        raise BadInput(f"{model!r}: not MODEL@VERSION or MODEL@STAGE")
    with tempfile.TemporaryDirectory(prefix="genpipe-") as held:
        pull(root, name, read_model(root, name).named(version).commit, Path(held) / name)
        yield Path(held) / name


def opened(directory: Path) -> Using:
    """The model in a directory that `genpipe train` or `genpipe pull` wrote."""
    torch.set_num_threads(1)
    keep_freed_memory()
    recipe, kind, facts = load_trained(directory)
    codec = Codec.read(directory) if "num_tokens" in facts else None
    return Using(recipe, kind, facts, codec, directory)


def conditions_of(using: Using, given: Mapping[str, Any]) -> dict[str, Tensor]:
    """Conditions, a row each, or a row for each value of a list: classes by name or number, texts."""
    return {
        key: value
        for name, values in given.items()
        for key, value in (
            passages_of(using, values)
            if name == "passages"
            else condition(using, name, [str(value) for value in listed(values)])
        )
    }


def passages_of(using: Using, values: Any) -> list[tuple[str, Tensor]]:
    """Passages as ids, [n, passages, time], and their lengths, [n, passages]: a list for each question, or one list for all."""
    require_condition(using, "passages")
    several = list(listed(values))
    rows = several if several and all(isinstance(row, list | tuple) for row in several) else [several]
    if not all(rows):
        raise BadInput("passages: there is none; give one or more for each question")
    codec, most = using.text(), max(map(len, rows))
    texts = [[torch.tensor(codec.encode(str(text))).numpy() for text in row] for row in rows]
    nothing = torch.zeros(0, dtype=torch.int64).numpy()
    ids, lengths = padded(
        [text for row in texts for text in [*row, *[nothing] * (most - len(row))]], codec.pad
    )
    shape = (len(rows), most)
    return [("passages", ids.unflatten(0, shape)), ("passage_lengths", lengths.unflatten(0, shape))]


def listed(values: Any) -> Iterable[Any]:
    """The values of a list, a tensor or an array, or the one value that it is."""
    if isinstance(values, Tensor | np.ndarray | np.generic):
        values = values.tolist()
    return values if isinstance(values, list | tuple | range) else [values]


def under(using: Using, given: Mapping[str, Any], n: int) -> dict[str, Tensor]:
    """Conditions of each of `n` examples: one for all, or one each; BadInput where one is missing that the model takes."""
    conditions = conditions_of(using, given)
    if isinstance(using.recipe, Samples | NextToken):
        require_given(using, conditions)
    for name, value in conditions.items():
        if len(value) not in (1, n):
            raise BadInput(f"{name}: {len(value)} conditions for {n} examples; give one, or one for each")
    return {name: value.expand(n, *value.shape[1:]) for name, value in conditions.items()}


def require_given(using: Using, conditions: Mapping[str, Tensor]) -> None:
    """Raise BadInput, with what to write, for a condition that the model takes and that is missing, or that it does not take."""
    for name in getattr(using.recipe, "given", ()):
        if name not in conditions:
            option = "--class CLASS" if name == "labels" else f"--given {name}=VALUE"
            raise BadInput(
                f"{using.name} takes the condition {name!r}, which is missing; add {option}, or from Python given={{{name!r}: …}}"
            )
    require_conditions(using.recipe, conditions)


def condition(using: Using, name: str, values: list[str]) -> list[tuple[str, Tensor]]:
    """A condition, a row a value: classes, or texts as their ids and their lengths."""
    require_condition(using, name)
    if not values:
        raise BadInput(f"{name}: there is no value; give one, or one for each example")
    if name == "vector":
        raise BadInput(
            f"vector: not written by hand; genpipe answer {using.directory.name} PICTURE takes the features of a picture"
        )
    if name == "labels":
        return [(name, torch.tensor([class_number(using, text) for text in values]))]
    if name in using.facts.get("conditions", {}):
        known = using.facts["conditions"][name]
        return [(name, torch.tensor([number_of(text, known, name) for text in values]))]
    codec = using.text()
    ids, lengths = padded([torch.tensor(codec.encode(text)).numpy() for text in values], codec.pad)
    return [(name, ids), (f"{name}_lengths", lengths)]


def require_condition(using: Using, name: str) -> None:
    """Raise BadInput for a condition that the model does not take."""
    takes = getattr(using.recipe, "given", ())
    if name not in takes:
        names = ", ".join(takes) or "none"
        remedy = "; classes need a model that was trained with conditional: true" if name == "labels" else ""
        raise BadInput(f"{using.name} does not take the condition {name!r}; it takes: {names}{remedy}")


def class_number(using: Using, text: str) -> int:
    """The number of a class that is given by its name, or by its number where classes have no names."""
    num_classes = using.facts.get("num_classes", 0)
    names = list(using.facts.get("classes", map(str, range(num_classes))))
    if text in names:
        return names.index(text)
    if "classes" in using.facts:
        return number_of(text, names)
    raise BadInput(
        f"no class {text!r}; "
        + (f"the classes are 0 to {num_classes - 1}" if names else "there are no classes")
    )


def number_of(text: str, names: Sequence[str], condition: str = "") -> int:
    """The place of a class among the names. Raises BadInput, begun with the name of the condition, where it is none of them."""
    if text in names:
        return names.index(text)
    more = f" and {len(names) - MANY:,} more" if len(names) > MANY else ""
    where = f"{condition}: " if condition else ""
    raise BadInput(f"{where}no class {text!r}; the classes are: {', '.join(names[:MANY])}{more}")


def require(using: Using, lacks: str, *capabilities: type) -> None:
    """Raise BadInput unless the model has one of the capabilities."""
    if not isinstance(using.recipe, capabilities):
        names = " nor ".join(capability.__name__ for capability in capabilities)
        raise BadInput(
            f"{using.name} {lacks}: it is not {names}; genpipe recipes lists the models and what each can do"
        )


def one_line(text: str) -> str:
    """A text on one line of a table."""
    return text.replace("\n", "⏎").replace("\t", "⇥")
