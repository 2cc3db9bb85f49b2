"""Samples from the same noise over the training: an animation, and some of its frames in one picture."""

from collections.abc import Iterable

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from genpipe.errors import BadState
from genpipe.files import FRAMES
from genpipe.sampling.pictures import grid, write_animation, write_png
from genpipe.sampling.plane import dots, frame_of
from genpipe.sampling.showing import Row, Showing

COLUMNS = 5  # of a frame
STAGES = 8  # rows of the still picture
OF_STAGE = 12  # images of a row
SIDE = 160  # pixels of a plot of points
MILLISECONDS = 250  # that a frame stays; the last one stays for eight of them


def over_training(showing: Showing) -> Iterable[Row]:
    """What train.frames left; nothing where there are no frames."""
    path = showing.model / FRAMES if showing.model else None
    if path is None or not path.exists():
        return
    try:
        stored = load_file(path)
        steps, frames = stored["steps"].tolist(), stored["frames"]
    except (SafetensorError, KeyError, OSError) as error:
        raise BadState(f"{path}: not the frames of a training: {error}; train again") from None
    pictures, still = (of_images if frames.ndim == 5 else of_points)(showing, frames)
    write_animation(showing.directory / "training.png", pictures, MILLISECONDS)
    write_png(showing.directory / "stages.png", still)
    when = f"after {len(steps)} steps of the training, from {steps[0]:,} to {steps[-1]:,}"
    yield Row("training.png", "animation", "Over the training", f"Samples from the same noise {when}.")
    shown = ", ".join(f"{steps[i]:,}" for i in chosen(len(steps)))
    yield Row(
        "stages.png", "picture", "Stages of the training", f"Samples from the same noise after {shown} steps."
    )


def chosen(number: int) -> list[int]:
    """The frames of the still picture, the first and the last among them."""
    shown = min(number, STAGES)
    return [round(i * (number - 1) / max(1, shown - 1)) for i in range(shown)]


def of_images(showing: Showing, frames: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """A grid for each frame, uint8 [frames, n, channels, height, width], and a row for each stage."""
    stages = frames[chosen(len(frames)), :OF_STAGE]
    return [grid(frame, COLUMNS) for frame in frames], grid(np.concatenate(stages), stages.shape[1])


def of_points(showing: Showing, frames: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """A plot for each frame, float32 [frames, n, dim], over points of the data in grey; four stages a row."""
    frame = frame_of(showing.data)
    plots = [dots(frame, points, SIDE) for points in frames]
    stages = np.stack([plots[i] for i in chosen(len(plots))]).transpose(0, 3, 1, 2)
    return plots, grid(stages, 4)
