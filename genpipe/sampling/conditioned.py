"""Texts beside the classes under which they were written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from genpipe.sampling.draw import conditions
from genpipe.sampling.showing import Row, Showing
from genpipe.sampling.tables import write_table


def classes_of(facts: Mapping[str, Any], given: Sequence[str]) -> dict[str, list[str]]:
    """The names of the classes of each condition that is a class."""
    number = facts.get("num_classes", 0)
    known = {"labels": [*facts.get("classes", map(str, range(number)))], **facts.get("conditions", {})}
    return {name: list(known[name]) for name in given if known.get(name)}


def under_classes(showing: Showing) -> Iterable[Row]:
    """The texts of texts.npy, each with what was asked for; nothing of a model that takes no class."""
    names = classes_of(showing.data.facts, showing.recipe.given)
    if not names:
        return
    ids = torch.from_numpy(np.load(showing.directory / "texts.npy"))
    given = conditions(showing.recipe, showing.data, len(ids))
    asked = [[names[name][number] for number in given[name].tolist()] for name in names]
    rows = list(zip(*asked, showing.spelled(ids), strict=True))
    write_table(showing.directory / "conditioned.tsv", (*names, "text"), rows)
    yield Row(
        "conditioned.tsv", "table", "Texts by condition", "What was asked for, and what the model wrote."
    )
