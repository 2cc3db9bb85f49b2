from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genpipe.recipe import Recipe


def load(directory: str | Path) -> "Recipe":
    """The trained model in a directory that `genpipe train` or `genpipe pull` wrote, in evaluation mode, on the CPU.

    Its training data is not needed. Raises BadInput where a file of the directory is missing.
    """
    from genpipe.assembly import load_trained  # imports torch, which takes seconds

    return load_trained(Path(directory)).recipe
