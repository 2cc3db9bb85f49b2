"""Opens what a recipe trains on, by the files that are there."""

from pathlib import Path

from genpipe.data.images import Images
from genpipe.data.pairs import Pairs
from genpipe.errors import BadInput
from genpipe.files import existing


def open_data(directory: Path) -> Images | Pairs:
    """The images or pairs of lines in a directory that `genpipe prepare` or `genpipe encode` wrote."""
    existing(directory, "run the stage that makes it (genpipe plan names it)")
    if (directory / "train_images.npy").exists():
        return Images(directory)
    if (directory / "train.ids.npy").exists():
        return Pairs(directory)
    raise BadInput(
        f"{directory}: wanted train_images.npy or train.ids.npy; recipes.*.data names datasets/… or encoded/…"
    )
