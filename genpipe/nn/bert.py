"""One transformer for reading and writing: BERT's shape (Devlin et al., 2018, arXiv:1810.04805), with masks as values.

By its mask (genpipe/nn/masks.py) the network is a masked language model, a language model or a sequence-to-sequence model.
What it has read it need not read again: keys and values are kept, and a new token sees them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from genpipe.errors import BadInput
from genpipe.nn.attention import Attention, Past, Positions, Talking
from genpipe.nn.conditional_norm import ConditionalNorm
from genpipe.nn.masks import FULL, Mask
from genpipe.nn.starts import STARTS, Start
from genpipe.nn.synthesizer import Kind

Activation = Literal["gelu", "gelu_tanh", "relu"]
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
# What is kept of tokens that were read: "layers", keys and values of each; "positions", int64 [n, time]; "tokens", bool [n, time],
# false for padding; "next", int64 [n], the position of the next token. Each tensor has a row a text (genpipe/sampling/decoding.take).
Cache = dict[str, Any]


class Embeddings(nn.Module):
    """The sum of a token's, its position's and its segment's vectors, normalised; widened where these are narrower."""

    def __init__(
        self, num_tokens: int, dim: int, max_length: int, num_segments: int, embedding_dim: int, condition_dim: int | None,
        dropout: float, eps: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, embedding_dim)
        self.positions = nn.Embedding(max_length, embedding_dim)
        self.segments = nn.Embedding(num_segments, embedding_dim) if num_segments else None
        self.norm = ConditionalNorm(embedding_dim, condition_dim, eps)
        self.dropout = nn.Dropout(dropout)
        self.widen = nn.Linear(embedding_dim, dim) if embedding_dim != dim else None

    def forward(
        self, ids: Tensor, segments: Tensor | None, positions: Tensor, condition: Tensor | None
    ) -> Tensor:
        """[n, time] → [n, time, dim]; without `segments` all tokens are of segment 0."""
        x = self.tokens(ids) + self.positions(positions)
        if self.segments is not None:
            x = x + (self.segments.weight[0] if segments is None else self.segments(segments))
        x = self.dropout(self.norm(x, condition))
        return x if self.widen is None else self.widen(x)


class Block(nn.Module):
    """Attention and a wider layer, each added to its input and normalised after that, or before it: [n, time, dim]."""

    def __init__(
        self, attention: Attention, dim: int, hidden_dim: int, activation: Activation, pre_norm: bool, condition_dim: int | None,
        dropout: float, eps: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention = attention
        self.norm_one = ConditionalNorm(dim, condition_dim, eps)
        self.norm_two = ConditionalNorm(dim, condition_dim, eps)
        self.wide, self.narrow = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm, self.activation_name, self.activation = pre_norm, activation, ACTIVATIONS[activation]

    def forward(
        self,
        x: Tensor,
        allowed: Tensor | None,
        positions: Positions,
        condition: Tensor | None,
        past: Past | None = None,
    ) -> tuple[Tensor, Past]:
        """The new features of each token, and the keys and values of `past` and of these tokens."""
        read = self.norm_one(x, condition) if self.pre_norm else x
        gathered, kept = self.attention(read, allowed, positions, past)
        x = x + self.dropout(gathered)
        if self.pre_norm:
            return x + self.dropout(self._fed(self.norm_two(x, condition))), kept
        x = self.norm_one(x, condition)
        return self.norm_two(x + self.dropout(self._fed(x)), condition), kept

    def _fed(self, x: Tensor) -> Tensor:
        return self.narrow(self.activation(self.wide(x)))


class Head(nn.Module):
    """Logits of tokens: a layer and a norm, then the product with the embeddings of all tokens, and a bias."""

    def __init__(
        self,
        num_tokens: int,
        dim: int,
        embedding_dim: int,
        activation: Activation,
        condition_dim: int | None,
        eps: float,
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, embedding_dim)
        self.norm = ConditionalNorm(embedding_dim, condition_dim, eps)
        self.bias = nn.Parameter(torch.zeros(num_tokens))
        self.activation = ACTIVATIONS[activation]

    def forward(self, hidden: Tensor, tokens: Tensor, condition: Tensor | None) -> Tensor:
        """[..., dim] → [..., num_tokens], with the embeddings of tokens, [num_tokens, embedding_dim]."""
        return F.linear(self.norm(self.activation(self.layer(hidden)), condition), tokens, self.bias)


class Bert(nn.Module):
    """Embeddings, blocks of attention, and logits by the same embeddings.

    `attention` names where logits of attention come from, `key_size` is the width of a query of a head (the width of values
    stays dim / num_heads), `embedding_dim` the width of factored embeddings. With `condition_dim` every norm follows a condition,
    [n, condition_dim], which `bottleneck` narrows first. `recompute` trades time for memory: blocks are computed again in the
    backward pass. Without `head` there are no logits. `start` says how weights begin (genpipe/nn/starts.py).
    """

    def __init__(
        self, num_tokens: int, dim: int, num_blocks: int, num_heads: int, *, max_length: int, num_segments: int = 2,
        embedding_dim: int | None = None, hidden_dim: int | None = None, key_size: int | None = None, pre_norm: bool = False,
        talking_heads: Talking = "none", attention: Sequence[Kind] = ("product",), condition_dim: int | None = None,
        bottleneck: int | None = None, dropout: float = 0.0, activation: Activation = "gelu", eps: float = 1e-12,
        recompute: bool = False, head: bool = True, start: Start = "bert",
    ) -> None:  # fmt: skip
        super().__init__()
        self.max_length, self.recompute = max_length, recompute
        width, narrowed = embedding_dim or dim, bottleneck if condition_dim is not None else None
        of_norms = narrowed or condition_dim
        self.condition = (
            nn.Linear(condition_dim, narrowed, bias=False) if condition_dim and narrowed else None
        )
        self.embeddings = Embeddings(num_tokens, dim, max_length, num_segments, width, of_norms, dropout, eps)
        self.blocks = nn.ModuleList(
            Block(
                Attention(
                    dim, num_heads, max_length, key_size=key_size, talking_heads=talking_heads, kinds=attention, dropout=dropout
                ),
                dim, hidden_dim or 4 * dim, activation, pre_norm, of_norms, dropout, eps,
            )
            for _ in range(num_blocks)
        )  # fmt: skip
        self.norm = ConditionalNorm(dim, of_norms, eps) if pre_norm else None
        self.head = Head(num_tokens, dim, width, activation, of_norms, eps) if head else None
        STARTS[start](self)

    def forward(
        self, ids: Tensor, segments: Tensor | None = None, positions: Tensor | None = None, mask: Mask = FULL,
        condition: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Features of tokens, [n, time, dim], of ids, segments and positions, int64 [n, time].

        Positions are 0, 1, … by default. Raises BadInput for a text that is longer than `max_length`.
        """
        return self._run(ids, segments, positions, mask, self._narrowed(condition), None)[0]

    def read(
        self, ids: Tensor, segments: Tensor | None = None, positions: Tensor | None = None, mask: Mask = FULL,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:  # fmt: skip
        """Features as of `forward`, and what `step` needs to go on; padding is what `mask.tokens` says."""
        hidden, layers, places = self._run(ids, segments, positions, mask, self._narrowed(condition), None)
        places = places.expand(len(ids), -1)
        last = places if mask.tokens is None else places.masked_fill(~mask.tokens, -1)
        return hidden, {
            "layers": layers,
            "positions": places,
            "tokens": mask.tokens,
            "next": last.max(1).values + 1,
        }

    def empty(self, n: int) -> Cache:
        """The cache of `n` texts of which nothing was read yet."""
        like = self.embeddings.tokens.weight
        layers = [
            tuple(like.new_zeros(n, a.num_heads, 0, size) for size in (a.key_size, a.head_size))
            for a in (block.attention for block in self._blocks)
        ]
        none = torch.zeros(n, 0, dtype=torch.int64, device=like.device)
        return {"layers": layers, "positions": none, "tokens": None, "next": none.sum(1)}

    def step(
        self, ids: Tensor, cache: Cache, segments: Tensor | None = None, positions: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:  # fmt: skip
        """Features, [n, new, dim], of new tokens, int64 [n, new], and the new cache; the old one stays as it is.

        A new token sees all that was read but padding, the new ones before it, and itself: what a causal or a UniLM mask lets it
        see. By default its position follows the largest one that was read.
        """
        n, new = ids.shape
        follow: Tensor = cache["next"].unsqueeze(1) + torch.arange(new, device=ids.device)
        positions = follow if positions is None else positions.expand(n, -1)
        tokens = cache["tokens"]
        if tokens is not None:
            tokens = torch.cat([tokens, tokens.new_ones(n, new)], 1)
        known = cache["positions"].shape[1]
        rule = None
        if new > 1:
            rule = torch.ones(1, new, known + new, dtype=torch.bool, device=ids.device).tril(known)
        mask = Mask(rule, tokens)
        hidden, layers, _ = self._run(ids, segments, positions, mask, self._narrowed(condition), cache)
        return hidden, {
            "layers": layers,
            "positions": torch.cat([cache["positions"], positions], 1),
            "tokens": tokens,
            "next": positions[:, -1] + 1,
        }

    def logits(self, hidden: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits of tokens, [..., num_tokens], of features, [..., dim]; a condition has a row for each of the first dimension."""
        if self.head is None:
            raise ValueError("this network was made without a head")
        return self.head(hidden, self.embeddings.tokens.weight, self._narrowed(condition))

    def attention_maps(
        self, ids: Tensor, segments: Tensor | None = None, positions: Tensor | None = None, mask: Mask = FULL,
        condition: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """How much each token takes of each other, [n, blocks, heads, time, time]."""
        maps: list[Tensor] = []
        self._run(ids, segments, positions, mask, self._narrowed(condition), None, maps)
        return torch.stack([each.expand(len(ids), -1, -1, -1) for each in maps], 1)

    def _run(
        self, ids: Tensor, segments: Tensor | None, positions: Tensor | None, mask: Mask, condition: Tensor | None,
        cache: Cache | None, maps: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[Past], Tensor]:  # fmt: skip
        """Features, keys and values of each block, and positions, int64 [n or 1, time]."""
        if positions is None:
            if ids.shape[1] > self.max_length:
                raise BadInput(
                    f"a text of {ids.shape[1]:,} tokens, and the network reads {self.max_length:,}; raise max_length"
                )
            positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        places = (
            positions if cache is None else torch.cat([cache["positions"], positions.expand(len(ids), -1)], 1)
        )
        known = Positions(positions, places)
        allowed, x = mask.allowed(), self._embedded(ids, segments, positions, condition)
        pasts: list[Past] = []
        for number, block in enumerate(self._blocks):
            past = None if cache is None else cache["layers"][number]
            if maps is not None:
                read = block.norm_one(x, condition) if block.pre_norm else x
                maps.append(block.attention.weights(read, allowed, known))
            x, kept = self._computed(block, x, allowed, known, condition, past)
            pasts.append(kept)
        return x if self.norm is None else self.norm(x, condition), pasts, positions

    def _embedded(self, ids: Tensor, *others: Tensor | None) -> Tensor:
        try:
            return self.embeddings(ids, *others)
        except IndexError:
            raise BadInput(
                f"a token beyond the {self.embeddings.tokens.num_embeddings:,} that the network knows, or a position beyond the "
                f"{self.max_length:,} that it reads; raise max_length, or write fewer tokens"
            ) from None

    @property
    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    def _computed(self, block: Block, *args: Any) -> tuple[Tensor, Past]:
        if self.recompute and self.training and torch.is_grad_enabled():
            return cast(tuple[Tensor, Past], checkpoint(block, *args, use_reentrant=False))
        return block(*args)

    def _narrowed(self, condition: Tensor | None) -> Tensor | None:
        return condition if condition is None or self.condition is None else self.condition(condition)
