"""One new token of each text through Bert: the numbers of `Bert.step`, without what only a training needs.

Modules that are called, dropouts that do nothing and dimensions of length 1 take as long as the products of a small model. Networks with conditions,
talking heads or a Synthesizer, and calls with gradients, go through `Bert.step`.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.nn.bert import Bert, Block, Cache
from genpipe.nn.conditional_norm import ConditionalNorm


def step_one(
    bert: Bert, ids: Tensor, cache: Cache, segment: int, positions: Tensor | None = None
) -> tuple[Tensor, Cache]:
    """Features, [n, dim], of one new token a row, int64 [n], and the new cache; the old one stays as it is.

    `positions`, int64 [n], follow the largest one that was read by default.
    """
    if not _is_plain(bert):
        segments = torch.full_like(ids, segment).unsqueeze(1)
        at = None if positions is None else positions.unsqueeze(1)
        hidden, cache = bert.step(ids.unsqueeze(1), cache, segments, at)
        return hidden[:, 0], cache
    places: Tensor = cache["next"] if positions is None else positions
    tokens = cache["tokens"]
    if tokens is not None:
        tokens = torch.cat([tokens, tokens.new_ones(len(ids), 1)], 1)
    allowed = None if tokens is None else tokens[:, None, None]
    x = bert._embedded(ids, torch.full_like(ids, segment) if segment else None, places, None)
    layers: list[tuple[Tensor, Tensor]] = []
    for block, past in zip(bert.blocks, cache["layers"], strict=True):
        x, kept = _through(cast(Block, block), x, past, allowed)
        layers.append(kept)
    known = torch.cat([cache["positions"], places.unsqueeze(1)], 1)
    after = {"layers": layers, "positions": known, "tokens": tokens, "next": places + 1}
    return x if bert.norm is None else _normed(bert.norm, x), after


def _is_plain(bert: Bert) -> bool:
    """Whether the network does nothing that is not written here."""
    first = cast(Block, bert.blocks[0])
    is_plain = (
        first.attention.kinds == ("product",)
        and first.attention.before is None
        and first.attention.after is None
    )
    return is_plain and first.norm_one.scale is None and not bert.training and not torch.is_grad_enabled()


def _through(
    block: Block, x: Tensor, past: tuple[Tensor, Tensor], allowed: Tensor | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """As a block in evaluation mode: [n, dim] → [n, dim]."""
    n, attention = len(x), block.attention
    width = attention.num_heads * attention.key_size
    read = _normed(block.norm_one, x) if block.pre_norm else x
    project = _linear(attention.project, read)
    heads = lambda part: part.view(n, attention.num_heads, 1, -1)
    key = torch.cat([past[0], heads(project[:, width : 2 * width])], 2)
    value = torch.cat([past[1], heads(project[:, 2 * width :])], 2)
    gathered = F.scaled_dot_product_attention(heads(project[:, :width]), key, value, allowed)
    x = x + _linear(attention.out, gathered.reshape(n, -1))
    if block.pre_norm:
        return x + _fed(block, _normed(block.norm_two, x)), (key, value)
    x = _normed(block.norm_one, x)
    return _normed(block.norm_two, x + _fed(block, x)), (key, value)


def _fed(block: Block, x: Tensor) -> Tensor:
    return _linear(block.narrow, block.activation(_linear(block.wide, x)))


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def _normed(norm: ConditionalNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
