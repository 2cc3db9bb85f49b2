"""Texts with hidden tokens, and what a model puts there."""

from collections.abc import Iterable

import torch

from genpipe.data.loader import derived_seed
from genpipe.sampling.draw import first
from genpipe.sampling.showing import Row, Showing
from genpipe.sampling.tables import write_table

HIDDEN = "＿"


def fillings(showing: Showing) -> Iterable[Row]:
    """Test texts as much hidden as in training, with what the model puts there, and as they are."""
    x = first(showing.data, showing.num)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(showing.seed, "hidden", 0))
        hidden = showing.recipe.draw_hidden(x)
        made = showing.recipe.restore(x, ~hidden)["ids"]
    mark = showing.data.facts["mask"]
    lines = [showing.spelled(ids) for ids in (made, x["ids"])]
    left = spelled_with_gaps(showing, x["ids"].masked_fill(hidden, mark), mark)
    rows = list(zip(left, *lines, strict=True))
    write_table(showing.directory / "fillings.tsv", ("hidden", "filled", "real"), rows)
    caption = f"Test texts with tokens hidden as in training ({HIDDEN}), with the likeliest ones in their places, and as they are."
    yield Row("fillings.tsv", "table", "Hidden tokens", caption)


def spelled_with_gaps(showing: Showing, ids: torch.Tensor, mark: int) -> list[str]:
    """Texts in which a hidden token is a low line: the speller shows no special ids."""
    if showing.speller is None:
        return showing.spelled(ids)
    tokens = [showing.spelled(row.unsqueeze(1)) for row in ids]
    pieces = [
        [HIDDEN if number == mark else piece for number, piece in zip(row, own, strict=True)]
        for row, own in zip(ids.tolist(), tokens, strict=True)
    ]
    return [showing.speller.separator.join(filter(None, row)) for row in pieces]
