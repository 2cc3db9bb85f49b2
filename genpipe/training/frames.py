"""What a model makes of the same noise at fixed steps of its training: the frames of an animation.

A frame depends on the weights after its step and on the seed alone. Frames travel in checkpoints, so that a training that
goes on has those of before, and so that they are the same whatever happened to its processes.
"""

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from genpipe.capabilities import Samples
from genpipe.data.loader import Batches, derived_seed
from genpipe.errors import BadInput
from genpipe.recipe import Recipe
from genpipe.training.checkpoint import Tensors

NUM_IMAGES, NUM_POINTS = 25, 500  # of a frame


class Frames:
    """The frames of a training so far: `taken` has uint8 images or float32 points, [n, ...], by step."""

    def __init__(self, recipe: Recipe, data: Batches, steps: int, number: int, seed: int) -> None:
        """Raises BadInput where there are to be frames and the model draws nothing, or under what its data lacks."""
        self.due = frame_steps(steps, number)
        self.taken: Tensors = {}
        self.seed = seed
        if not self.due:
            return
        name = type(recipe).__name__
        if not isinstance(recipe, Samples):
            raise BadInput(f"train.frames: {name} draws nothing, so it has no frames; set frames: 0")
        self.num = NUM_IMAGES if "image_shape" in data.facts else NUM_POINTS
        batch = data.train_batch(seed, 0, self.num)
        if missing := [condition for condition in recipe.given if condition not in batch]:
            raise BadInput(f"train.frames: {name} takes {missing[0]!r}, which its data does not have")
        self.given = {condition: batch[condition] for condition in recipe.given}

    def take(self, step: int, recipe: Recipe, average: Mapping[str, Tensor]) -> None:
        """Draw the frame of a step with the weights that a training that ends here would export.

        The model is copied: whether it trains, its device and its buffers stay as they are.
        """
        model = copy.deepcopy(recipe).cpu().eval()
        model.load_state_dict({name: x.cpu() for name, x in average.items()}, strict=False)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, "frames"))
            made = cast(Samples, model).sample(self.num, self.given)
        if "images" in made:
            self.taken[name_of(step)] = cast(Samples, model).pixels.to_bytes(made["images"])
        elif "points" in made:
            self.taken[name_of(step)] = made["points"].float()
        else:
            raise BadInput(
                f"train.frames: {type(recipe).__name__} makes {', '.join(made)}, and frames are of images or points; set frames: 0"
            )


def frame_steps(steps: int, number: int) -> tuple[int, ...]:
    """The steps after which frames are drawn, from 0 to the last, denser at the beginning, where more changes."""
    last = max(1, number - 1)
    return tuple(sorted({round(steps * (k / last) ** 2) for k in range(number)}))


def name_of(step: int) -> str:
    """The name of a frame in a checkpoint; names sort as steps do."""
    return f"step-{step:08d}"


def stacked(taken: Mapping[str, Tensor]) -> Tensors:
    """`steps`, int64 [frames], and `frames`, [frames, n, ...]."""
    names = sorted(taken)
    steps = torch.tensor([int(name.removeprefix("step-")) for name in names])
    return {"steps": steps, "frames": torch.stack([taken[name] for name in names])}
