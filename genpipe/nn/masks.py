"""Which tokens see which: values that make one transformer a reader, a language model or a sequence-to-sequence model.

Rows are queries, columns are keys, and true means "sees", as in torch's scaled_dot_product_attention (nn.MultiheadAttention
has it the other way round). From Language Models to Seq2Seq: Masks (Su, 2019, archives/6933); UniLM (Dong et al., 2019, arXiv:1905.03197).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """`rule`, bool [n or 1, queries, keys]; `tokens`, bool [n, keys], false for padding, which stays apart from every rule.

    None: each query sees every key; no key is padding. `a & b` sees what both see.
    """

    rule: Tensor | None = None
    tokens: Tensor | None = None

    def __and__(self, other: "Mask") -> "Mask":
        return Mask(_both(self.rule, other.rule), _both(self.tokens, other.tokens))

    def allowed(self) -> Tensor | None:
        """Whether each query sees each key, for all heads alike: bool [n or 1, 1, queries or 1, keys]; None where all do.

        A query of padding that would see nothing sees all keys: its softmax is then defined, and no one reads it.
        """
        if self.rule is None:
            return None if self.tokens is None else self.tokens[:, None, None]
        if self.tokens is None:
            return self.rule.unsqueeze(1)
        sees = self.rule & self.tokens.unsqueeze(1)
        return (sees | ~sees.any(-1, keepdim=True)).unsqueeze(1)


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a & b


FULL = Mask()


def of_tokens(tokens: Tensor) -> Mask:
    """Each token sees all tokens of its text; `tokens`, bool [n, time], is false for padding."""
    return Mask(tokens=tokens)


def of_lengths(lengths: Tensor, time: int) -> Mask:
    """The same from the number of tokens of each row, int64 [n]; padding is on the right."""
    return Mask(tokens=torch.arange(time, device=lengths.device) < lengths.unsqueeze(1))


def causal(time: int, device: torch.device | None = None) -> Mask:
    """A token sees itself and the tokens before it."""
    return Mask(torch.ones(1, time, time, dtype=torch.bool, device=device).tril())


def prefix(segments: Tensor) -> Mask:
    """UniLM: tokens of segment 0 see each other; a token of segment 1 sees these, itself and those of segment 1 before it.

    `segments`, int64 [n, time], are 0 for the source and then 1 for the target. This rule, cumsum(keys) ≤ cumsum(queries),
    holds for one source and one target: with several turns a target would see later turns.
    """
    reached = segments.cumsum(1)
    return Mask(reached.unsqueeze(1) <= reached.unsqueeze(2))


def permuted(ranks: Tensor, sees_itself: bool = True) -> Mask:
    """A token sees those that come before it in an order, and itself, or only those before it.

    `ranks`, int64 [n, time]: the place of each token in the order of its row. XLNet (Yang et al., 2019, arXiv:1906.08237).
    """
    keys, queries = ranks.unsqueeze(1), ranks.unsqueeze(2)
    return Mask(keys <= queries if sees_itself else keys < queries)


def same_document(documents: Tensor) -> Mask:
    """A token sees those of its own document; `documents`, int64 [n, time], numbers the documents of a packed window."""
    return Mask(documents.unsqueeze(1) == documents.unsqueeze(2))


def two_streams(ranks: Tensor, places: Tensor) -> Mask:
    """Of a text and of queries behind it, each for a place of the text: XLNet's two streams as one text.

    A token sees itself and those before it in the order, as in `permuted`. A query sees the tokens before its place in the order,
    and itself, which knows the place and not the token. `ranks`, int64 [n, time]; `places`, int64 [n, queries].
    """
    n, time = ranks.shape
    queries = places.shape[1]
    rule = torch.zeros(n, time + queries, time + queries, dtype=torch.bool, device=ranks.device)
    rule[:, :time, :time] = ranks.unsqueeze(1) <= ranks.unsqueeze(2)
    rule[:, time:, :time] = ranks.unsqueeze(1) < ranks.gather(1, places).unsqueeze(2)
    rule[:, time:, time:] = torch.eye(queries, dtype=torch.bool, device=ranks.device)
    return Mask(rule)
