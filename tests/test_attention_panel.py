"""What the panel of attention shows: the weights of the heads, of the tokens of one test text."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genpipe.sampling.attention import SIDE, attention
from genpipe.sampling.draw import first
from genpipe.sampling.showing import Showing
from tests import tiny

# two blocks of two heads
NAMES = ["masked_lm", "masked_lm_permuted", "masked_lm_replaced", "unilm", "unilm_passages", "conditional_lm"]


@pytest.mark.parametrize("name", NAMES)
def test_each_token_takes_shares_of_what_it_sees(name, tmp_path):
    data = tiny.data_for(name, tmp_path)
    recipe: Any = tiny.recipe_of(name, data).eval()
    x = first(data, 3)
    torch.manual_seed(0)
    ids, weights = recipe.attention(x)
    n, time = ids.shape
    assert weights.shape == (n, 2, 2, time, time)
    assert n == 3
    own = (ids != data.facts["pad"])[:, None, None]
    shares = weights.sum(-1)
    assert torch.allclose(shares[own.expand_as(shares)], torch.ones(()), atol=1e-6)
    # padding gives a token nothing
    assert not (weights * own.unsqueeze(-1) * ~own.unsqueeze(-2)).any()


def test_the_picture_has_a_map_a_head_with_its_largest_weight_in_black(tmp_path):
    data = tiny.data_for("conditional_lm", tmp_path)
    recipe: Any = tiny.recipe_of("conditional_lm", data).eval()
    showing = Showing(recipe, None, tmp_path, data=data, kind="tagged", num=2, seed=0, how={})
    (row,) = attention(showing)
    assert (row.file, row.show) == ("attention.png", "picture")
    x = first(data, 1)
    _, weights = recipe.attention(x)
    number = int(x["lengths"][0]) + 1
    picture = np.asarray(Image.open(tmp_path / row.file)).astype(int)
    side = number * SIDE
    assert picture.shape == (2 * (side + 2) + 2, 2 * (side + 2) + 2)
    for block in range(2):
        for head in range(2):
            top, left = 2 + block * (side + 2), 2 + head * (side + 2)
            shown = picture[top : top + side : SIDE, left : left + side : SIDE]
            expected = weights[0, block, head, :number, :number].detach().numpy()
            assert np.abs(shown - 255 * (1 - expected / expected.max())).max() <= 0.5 + 1e-3
            assert shown.min() == 0
            assert (shown[np.triu_indices(number, 1)] == 255).all()
    assert f"The {number} tokens, marks left out: " in row.caption
