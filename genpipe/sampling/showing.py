"""What a panel gets, and what it leaves."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from genpipe.capabilities import Embeds, Example
from genpipe.data.loader import Data
from genpipe.sampling.draw import conditions, draw
from genpipe.sampling.text import Speller


@dataclass(frozen=True)
class Row:
    """A row of panels.json: a file, how it is shown, and the words under it."""

    file: str
    show: Literal["picture", "animation", "table", "text", "plot"]
    title: str
    caption: str


@dataclass(frozen=True)
class Output:
    """Where the files of what a model made go, and how its ids become text."""

    recipe: Any
    speller: Speller | None
    directory: Path

    def spelled(self, ids: Tensor) -> list[str]:
        """Ids as text; as numbers where the data has no vocabulary."""
        if self.speller:
            return self.speller.lines(ids)
        return [" ".join(map(str, row)) for row in ids.tolist()]


@dataclass(frozen=True)
class Showing(Output):
    """A trained model and its data, before its panels."""

    data: Data
    kind: str
    num: int
    seed: int
    how: Mapping[str, Any]
    model: Path | None = None  # the directory of the model
    features: Embeds | None = None  # the model in whose features images are compared; None: by their pixels
    processes: int = 1  # that draw samples

    @functools.cached_property
    def drawn(self) -> Example:
        """What the model draws, under the conditions of test rows."""
        given = conditions(self.recipe, self.data, self.num)
        return draw(self.recipe, self.num, self.seed, given, self.how, processes=self.processes)


@dataclass(frozen=True)
class Panel:
    """`show` writes files for a model with all of `needs` on data of one of `kinds`, or of any kind where it is empty.

    It leaves no row where there is nothing to show, as the classes of a model that takes none.
    """

    needs: tuple[type, ...]
    kinds: tuple[str, ...]
    show: Callable[[Showing], Iterable[Row]]
