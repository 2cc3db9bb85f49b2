"""Feature networks that others have trained, as TorchScript files."""

import shutil
from pathlib import Path

from genpipe.errors import BadInput
from genpipe.params.corpora import FeatureNetwork
from genpipe.sources.prepared import Prepared


def prepare_feature_network(source: Path, directory: Path, dataset: FeatureNetwork) -> Prepared:
    """Copy the file as network.pt, and say in data.json what images it takes.

    Raises BadInput where it is no TorchScript file. Such a file holds code: take it from where you would take a program.
    """
    import torch  # here: the other data sets need none

    try:
        torch.jit.load(source, map_location="cpu")
    except (RuntimeError, ValueError, IsADirectoryError) as error:
        line = str(error).strip().splitlines()[0]
        raise BadInput(
            f"{source}: not a TorchScript file: {line}; save the network with torch.jit.trace(...).save(FILE)"
        ) from None
    shutil.copyfile(source, directory / "network.pt")
    facts = {"channels": dataset.channels, "size": dataset.image_size, "values": dataset.values}
    return Prepared((), facts, {})
