"""How far the samples of a flow are from real images by the temperature at which they are drawn."""

from collections.abc import Mapping
from typing import Any

from genpipe.evaluation.features import embedded, real_side
from genpipe.evaluation.frechet import FrechetFrom
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.sampling.draw import conditions, draw, whole
from genpipe.sampling.temperatures import temperatures_of

NUM_SAMPLES = 1000  # of each temperature


def judge_temperatures(trial: Trial) -> dict[str, float]:
    """Fréchet distances from real images by temperature, in percent, of as many samples each; at 0 all samples are one.

    Samples are drawn with the seed of the project, number j from the same noise at each temperature. Nothing of a model that takes
    no temperature.
    """
    options = {round(100 * t): how for t, how in temperatures_of(trial.recipe, trial.how).items() if t}
    if not options:
        return {}
    num = min(NUM_SAMPLES, len(whole(trial.data, trial.split)["images"]) // 2)
    side = real_side(trial.yardstick(), trial.data, trial.split, num)
    if num <= side.real.shape[1]:
        raise NotMeasured(
            f"frechet_temperature: {side.real.shape[1]} features need more than {side.real.shape[1]} images of each kind, and there "
            f"are {num}; keep more images for testing"
        )
    from_real = FrechetFrom(side.real)
    found = {
        f"frechet_temperature_{percent}": from_real(embedded(side.yardstick, drawn(trial, num, how)))
        for percent, how in options.items()
    }
    return {
        **found,
        "frechet_temperature_real": from_real(side.other),
        "frechet_temperature_num_images": float(num),
    }


def drawn(trial: Trial, num: int, how: Mapping[str, Any]) -> Any:
    """Samples as bytes, uint8 [num, channels, height, width], under the conditions of the rows of the split."""
    given = conditions(trial.recipe, trial.data, num, trial.split)
    made = draw(trial.recipe, num, trial.seed, given, how)
    return trial.recipe.pixels.to_bytes(made["images"])
