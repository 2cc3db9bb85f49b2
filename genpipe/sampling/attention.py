"""Pictures of what the heads of a transformer look at."""

from collections.abc import Iterable

import numpy as np
import torch

from genpipe.data.loader import derived_seed
from genpipe.sampling.draw import first
from genpipe.sampling.pictures import grid, write_png
from genpipe.sampling.showing import Row, Showing

LONGEST = 40  # tokens that a picture has room for
SIDE = 6  # pixels of a pair of tokens


def attention(showing: Showing) -> Iterable[Row]:
    """One test text, and for each block, from top to bottom, what each of its heads takes from where."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(showing.seed, "attention", 0))
        ids, weights = showing.recipe.attention(first(showing.data, 1))
    shown = (ids[0] != showing.data.facts["pad"]).nonzero().flatten()[:LONGEST]
    maps = weights[0][:, :, shown][:, :, :, shown]
    # the largest weight of a map is black: of many tokens even that is small
    shares = maps / maps.amax((2, 3), keepdim=True)
    stored = (255 - 255 * shares).round().to(torch.uint8).flatten(0, 1).unsqueeze(1).numpy()
    write_png(
        showing.directory / "attention.png",
        grid(np.kron(stored, np.ones((1, 1, SIDE, SIDE), np.uint8)), maps.shape[1]),
    )
    text = showing.spelled(ids[:, shown])[0]
    caption = (
        "What the heads look at in a test text. Each map is a head, each line of maps a block. A row of a map is a token, from top to bottom; "
        f"a column is a token that it takes from. Black is the largest weight of the map. The {len(shown)} tokens, marks left out: {text}"
    )
    yield Row("attention.png", "picture", "Attention", caption)
