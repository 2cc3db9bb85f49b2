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


def prepare(
    source: str | Path, out: str | Path, kind: str = "image_folder", **options: Any
) -> dict[str, Any]:
    """Make a data set of raw data of your own, as `genpipe prepare` does; returns what source.json says of it.

    `options` are the keys of a block of `datasets` in params.yaml, without `source`:

        genpipe.prepare("my/faces", "artifacts/datasets/faces", image_size=32)  # a sub-folder for each class
        faces = genpipe.open_data("artifacts/datasets/faces")

    Raises BadInput where an option or the source is not valid; then nothing is written.
    """
    from genpipe.sources.datasets import prepare_from

    return prepare_from(Path(source).resolve(), Path(out).resolve(), {**options, "kind": kind}).record()


def open_data(directory: str | Path) -> Any:  # data.loader.Data
    """A data set in a directory that `genpipe prepare` or `genpipe encode` wrote: its splits, facts and examples.

        test = next(iter(genpipe.open_data("artifacts/datasets/digits").split("test")))
        test["images"]  # uint8 [100, 1, 28, 28]

    Raises BadState where a file of it is missing or damaged.
    """
    from genpipe.data.opening import open_data

    return open_data(Path(directory))
