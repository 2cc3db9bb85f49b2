"""A feature network that is given as a TorchScript file, in whose features images are compared."""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Embeds, Example
from genpipe.errors import BadInput, BadState

FILE = "network.pt"  # beside data.json, as `genpipe prepare` writes it


class GivenNetwork(Embeds):
    """Images in [0, 1] as the network takes them, and its answers as features."""

    def __init__(self, directory: Path) -> None:
        """Read a directory of the kind `network`; BadState where the file is not TorchScript."""
        self.facts = json.loads((directory / "data.json").read_text())["facts"]
        self.place = directory / FILE
        try:
            self.network = torch.jit.load(self.place, map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise BadState(f"{self.place}: not a TorchScript file: {line}; prepare it again") from None

    def embed(self, x: Example) -> Tensor:
        """Features, float [n, feature]: the mean over places where the network answers with maps."""
        # the optimiser of TorchScript may compute the second call otherwise than the first
        with torch.jit.optimized_execution(False):
            made = self.network(self._as_taken(x["images"]))
        if not isinstance(made, Tensor) or made.dim() < 2 or len(made) != len(x["images"]):
            raise BadState(
                f"{self.place}: the network answers with no tensor [images, feature]; give another one"
            )
        return made.flatten(2).mean(2).float() if made.dim() > 2 else made.float()

    def _as_taken(self, images: Tensor) -> Tensor:
        channels, size, values = (self.facts[key] for key in ("channels", "size", "values"))
        if images.shape[1] not in (1, channels):
            raise BadInput(
                f"{self.place}: it takes images of {channels} channel, and these have {images.shape[1]}"
            )
        images = images.float().expand(-1, channels, -1, -1)
        if size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        return {"unit": images, "signed": 2 * images - 1, "bytes": 255 * images}[values]
