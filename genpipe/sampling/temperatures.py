"""The temperatures of models whose `sample` takes one."""

import inspect
from collections.abc import Mapping
from typing import Any

from genpipe.capabilities import Samples
from genpipe.errors import BadInput
from genpipe.sampling.draw import checked_options

TEMPERATURES = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)
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
