"""Metrics of judges that a training picks its best checkpoint by, on rows that it holds out.

A checkpoint is measured as the model that it would be exported as, by the first process, on one thread of the CPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from genpipe.capabilities import Bounds, Classifies, Decodes, Embeds, Encodes, LogProb, Masks, Samples
from genpipe.data.loader import Data, Example
from genpipe.errors import BadInput
from genpipe.evaluation import (
    bounds,
    classes,
    codes,
    density,
    frechet,
    kernel,
    likelihood,
    neighbours,
    pixels,
    plane,
    restoring,
    transport,
)
from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.recipe import Recipe
from genpipe.sampling.draw import conditions, draw

SPLIT = "validation"


@dataclass(frozen=True)
class Validation:
    """A judge of models with all of `needs` on data of one of `kinds`, whose samples are drawn for it where it needs some."""

    needs: tuple[type, ...]
    kinds: tuple[str, ...]
    judge: Callable[[Trial], Mapping[str, float]]

    def measure(
        self, metric: str, model: Recipe, data: Data, kind: str, num: int, seed: int, yardstick: Embeds | None
    ) -> float:
        """The value of a metric on the rows that `data` holds out; of `num` samples where it is about samples.

        Raises BadInput where it cannot be measured, with the reason.
        """
        trial = Trial(model, data, kind, SPLIT, Path(), lambda: _there(yardstick), None, seed)
        if not (kind in self.kinds and all(isinstance(model, need) for need in self.needs)):
            needs = " and ".join(need.__name__ for need in self.needs)
            raise BadInput(
                f"train.best.metric: validation.{metric} is of models with {needs} on {' or '.join(self.kinds)}, and this is "
                f"{type(model).__name__} on {kind}; name another metric"
            )
        try:
            if Samples in self.needs:
                trial = Trial(**{**vars(trial), "made": _drawn(model, data, num, seed)})
            found = self.judge(trial)
            if metric not in found:
                raise NotMeasured(f"this {type(model).__name__} has: {', '.join(found)}")
            return float(found[metric])
        except NotMeasured as reason:
            raise BadInput(f"train.best.metric: validation.{metric} cannot be measured: {reason}") from None


def _there(yardstick: Embeds | None) -> Embeds:
    if yardstick is None:
        raise NotMeasured(
            "the recipe's validator names no model in whose features images can be compared; name a classifier of such images"
        )
    return yardstick


def _drawn(model: Recipe, data: Data, num: int, seed: int) -> Example:
    """Samples, images as bytes, under the conditions of the held out rows; the same noise for every checkpoint."""
    assert isinstance(model, Samples)
    made = draw(model, num, seed, conditions(model, data, num, SPLIT))
    return {**made, "images": model.pixels.to_bytes(made["images"])} if "images" in made else made


# Written out, row by row: the code that a training depends on is read from here. Without an annotation: that would make the
# code of this file, and what it imports, that of trainings which use no row.
VALIDATIONS = {
    "frechet_classifier": Validation((Samples,), ("images",), frechet.judge_images),
    "kernel_distance": Validation((Samples,), ("images",), kernel.judge_kernel),
    "sample_coverage": Validation((Samples,), ("images",), neighbours.judge_neighbours),
    "feature_wasserstein": Validation((Samples,), ("images",), transport.judge_transport),
    "pixel_distance": Validation((Samples,), ("images",), pixels.pixel_distances),
    "wasserstein": Validation((Samples,), ("points",), plane.judge_points),
    "sliced_wasserstein": Validation((Samples,), ("points",), plane.judge_points),
    "bits_per_dim": Validation((LogProb,), ("images",), likelihood.bits_per_dim),
    "nats_per_image": Validation((LogProb,), ("images",), likelihood.bits_per_dim),
    "nats_per_point": Validation((LogProb,), ("points",), density.judge_density),
    "negative_elbo": Validation((Bounds,), ("images", "points"), bounds.judge_bounds),
    "reconstruction_mse": Validation((Encodes, Decodes), ("images",), codes.judge_codes),
    "restoration_mse": Validation((Masks,), ("images",), restoring.judge_restoring),
    "accuracy": Validation((Classifies,), ("images",), classes.judge_classes),
}
