"""What a judge is: the capabilities and the kinds of data that it needs, and the metrics that it writes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genpipe.capabilities import Embeds, Example
from genpipe.data.loader import Data
from genpipe.errors import BadInput
from genpipe.sampling.text import Speller


class NotMeasured(Exception):
    """Why a metric is left out, in one line; what else can be measured is measured."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A trained model before a judge. `yardstick` gives the model in whose features images are compared, or NotMeasured.

    Samples are in the files of `samples`, or in `made`: images as bytes, points as they are. `how` has the options under which
    the samples were drawn, for a judge that draws more of them.
    """

    recipe: Any
    data: Data
    kind: str
    split: str
    samples: Path
    yardstick: Callable[[], Embeds]
    speller: Speller | None
    seed: int
    made: Example | None = None
    how: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """`judge` measures a model with all of `needs` on data of one of `kinds`; of splits other than test too, if `any_split`."""

    needs: tuple[type, ...]
    kinds: tuple[str, ...]
    judge: Callable[[Trial], Mapping[str, float]]
    any_split: bool = True

    def fits(self, trial: Trial) -> bool:
        """Whether the model can do what this judge needs, on data of this kind and split."""
        return (
            trial.kind in self.kinds
            and (self.any_split or trial.split == "test")
            and all(isinstance(trial.recipe, need) for need in self.needs)
        )


def judged(trial: Trial, judges: tuple[Judge, ...], name: str) -> dict[str, float]:
    """The metrics of every judge that fits, `SPLIT.` before those of another split than test.

    A metric that cannot be measured, or that is not a finite number, is left out, and its reason printed. Raises BadInput where no judge fits at all.
    """
    fitting = [judge for judge in judges if judge.fits(trial)]
    if not fitting and trial.split == "test":
        raise BadInput(
            f"{name}: no judge fits {type(trial.recipe).__name__} on data of the kind {trial.kind}; give it a capability, "
            "or write a judge in genpipe/evaluation"
        )
    prefix = "" if trial.split == "test" else f"{trial.split}."
    metrics: dict[str, float] = {}
    left_out: dict[str, None] = {}  # reasons, in order; several judges may have the same
    for judge in fitting:
        try:
            found = judge.judge(trial)
        except NotMeasured as reason:
            left_out[str(reason)] = None
            continue
        finite = {key: value for key, value in found.items() if math.isfinite(value)}
        metrics |= {f"{prefix}{key}": value for key, value in finite.items()}
        left_out |= {
            f"{key}: {found[key]}: the split {trial.split} has no case of it, or the model gives no finite number": None
            for key in found
            if key not in finite
        }
    for reason in left_out:
        print(f"{name}: left out: {reason}")
    return metrics
