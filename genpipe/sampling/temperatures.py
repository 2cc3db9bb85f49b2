"""Samples from the same noise at several temperatures, of models whose `sample` takes one."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from genpipe.capabilities import Samples
from genpipe.data.loader import derived_seed
from genpipe.errors import BadInput
from genpipe.sampling.draw import checked_options, conditions
from genpipe.sampling.pictures import grid, write_png
from genpipe.sampling.showing import Row, Showing

TEMPERATURES = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)
OF_ROW = 12  # samples of a temperature
OPTION = "temperature"


def temperatures_of(model: Samples, how: Mapping[str, Any]) -> dict[float, dict[str, Any]]:
    """The options of `sample` by temperature: `how` with each temperature that the model takes; none where it takes no temperature."""
    if OPTION not in inspect.signature(model.sample).parameters:
        return {}
    options = {}
    for temperature in TEMPERATURES:
        try:
            options[temperature] = checked_options(model.sample, {**how, OPTION: temperature}, ("n", "given"))
        except BadInput:
            # a model that divides by the temperature does not take 0
            if temperature:
                raise
    return options


def samples_by_temperature(showing: Showing) -> Iterable[Row]:
    """A temperature a row, from the same noise and under the same conditions; nothing of a model that takes no temperature."""
    options = temperatures_of(showing.recipe, showing.how)
    if not options:
        return
    recipe: Samples = showing.recipe
    given = conditions(recipe, showing.data, OF_ROW)
    rows = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for how in options.values():
            torch.manual_seed(derived_seed(showing.seed, "temperatures"))
            rows.append(recipe.sample(OF_ROW, given, **how)["images"])
    stored = recipe.pixels.to_bytes(torch.cat(rows)).numpy()
    write_png(showing.directory / "temperatures.png", grid(stored, OF_ROW))
    *others, last = (f"{temperature:g}" for temperature in options)
    caption = f"A temperature a row, from top to bottom {', '.join(others)} and {last}; a column from the same noise."
    yield Row("temperatures.png", "picture", "Samples by temperature", caption)
