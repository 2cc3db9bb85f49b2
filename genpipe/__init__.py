from pathlib import Path
from typing import Any


def load(directory: str | Path) -> Any:  # a Recipe: what else it can do depends on the model
    """The trained model in a directory that `genpipe train` or `genpipe pull` wrote, in evaluation mode, on the CPU.

    Its training data is not needed. What it can do are the methods of genpipe/capabilities.py:

        ogan = genpipe.load("artifacts/models/ogan")
        codes = ogan.encode({"images": torch.rand(5, 1, 28, 28)})  # [5, 32]
        images = ogan.decode(codes, {})["images"]  # [5, 1, 28, 28], in [0, 1]

    Raises BadState where a file of the directory is missing, and BadInput where one is damaged.
    """
    from genpipe.assembly import load_trained  # imports torch, which takes seconds

    return load_trained(Path(directory)).recipe
