"""Seconds that drawing images pixel by pixel takes: from cached maps, beside a loop of passes over the whole picture.

    python -m benchmarks.raster [--recipe pixelcnn] [--num 64] [--side 28] [--rounds 1]

One thread, in turns; grey pictures, and the network of a block of params.yaml far from its start. The time does not depend on what
the weights are. The images must be the same bits. Of 64 digits the loop takes some ten minutes; smaller pictures favour it.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genpipe.assembly import build
from genpipe.errors import BadInput, GenpipeError, WorkFailed
from genpipe.models.pixelcnn import PixelCNN
from genpipe.models.pixelrnn import PixelRNN
from genpipe.params.project import read_params

PROJECT = Path(__file__).resolve().parents[1]
LEAST = 10.0  # times as fast
WAYS = {"cached maps": True, "whole passes": False}


def model_of(root: Path, recipe: str, side: int) -> PixelCNN | PixelRNN:
    """The network of a block, with weights that draw both dark and bright pixels."""
    recipes = read_params(root).recipes
    if recipe not in recipes or recipes[recipe].model not in ("pixelcnn", "pixelrnn"):
        raise BadInput(f"--recipe {recipe}: not a block of pixelcnn or pixelrnn in params.yaml")
    block = recipes[recipe]
    facts = {"image_shape": [1, side, side], "num_classes": 10}
    model: Any = build(block.model, block.train.network, facts, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def drawn(model: PixelCNN | PixelRNN, num: int, cached: bool) -> tuple[float, Tensor]:
    """Seconds, and the images."""
    torch.manual_seed(1)
    given = {"labels": torch.arange(num) % 10} if model.given else {}
    start = time.perf_counter()
    images = model.sample(num, given, cached=cached)["images"]
    return time.perf_counter() - start, images


def compared(model: PixelCNN | PixelRNN, num: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, round by round; WorkFailed where the images differ."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        images = []
        for name, cached in WAYS.items():
            found, made = drawn(model, num, cached)
            seconds[name].append(found)
            images.append(made)
        if not torch.equal(*images):
            raise WorkFailed(f"{int((images[0] != images[1]).sum())} pixels differ between the two ways")
    return seconds


def main() -> int:
    """Print the table; 1 where cached maps are not LEAST times as fast."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="pixelcnn")
    parser.add_argument("--num", type=int, default=64, help="images drawn at once (default: %(default)s)")
    parser.add_argument("--side", type=int, default=28, help="pixels of a side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        seconds = compared(
            model_of(PROJECT, arguments.recipe, arguments.side), arguments.num, arguments.rounds
        )
    except GenpipeError as error:
        print(error, file=sys.stderr)
        return 2
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    for name, found in seconds.items():
        print(f"{name}: {statistics.median(found):.2f} s ({min(found):.2f}-{max(found):.2f})")
    print(f"the same {arguments.num} images; cached maps {ratio:.1f} times as fast; at least {LEAST:.0f}")
    return int(ratio < LEAST)


if __name__ == "__main__":
    sys.exit(main())
