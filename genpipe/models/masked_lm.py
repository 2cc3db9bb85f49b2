"""Masked language models on packed documents: whole words are hidden, and predicted from the others.

RoBERTa-style pre-training (Liu et al., 2019, arXiv:1907.11692; Su, 2020, archives/7055) on the transformer of genpipe/nn/bert.py. Other
objectives of the same network: permuted language models (XLNet, Yang et al., 2019, arXiv:1906.08237) and replaced-token detection
(ELECTRA, Clark et al., 2020, arXiv:2003.10555); other masks: runs of words and similar characters (MacBERT, Cui et al., 2020,
arXiv:2004.13922), DropToken (Su, 2021, archives/8770). Departs from RoBERTa: documents of a window do not see each other, and
positions begin with each document.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from genpipe.capabilities import Attends, Example, Fills
from genpipe.errors import BadInput
from genpipe.nn import masks
from genpipe.nn.attention import Talking
from genpipe.nn.bert import Bert
from genpipe.nn.masking import keep_some
from genpipe.nn.synthesizer import Kind
from genpipe.nn.token_masking import (
    corrupted,
    expected_embeddings,
    hide_runs,
    hide_words,
    most_similar,
    neighbours,
)
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update, mean_over

Rate = Annotated[float, Field(gt=0, lt=1)]
Part = Annotated[float, Field(ge=0, le=1)]
NUM_CONTEXTS = 500  # frequent characters beside which similar ones stand alike
NUM_READ = 100  # batches out of which these are counted
UNKNOWN = 0


class MaskedLM(Recipe, Fills, Attends):
    """Predicts hidden characters from those around them."""

    similar: Tensor

    def __init__(
        self,
        num_tokens: int,
        time: int,
        pad: int,
        mask: int,
        dim: Count = 128,
        num_blocks: Count = 4,
        num_heads: Count = 4,
        objective: Literal["masked", "permuted", "replaced"] = "masked",
        masking: Literal["words", "tokens", "runs"] = "words",
        rate: Rate = 0.15,
        similar_share: Part = 0.0,
        drop_token: DecayRate = 0.0,
        expected: bool = False,
        generator_dim: Count | None = None,
        embedding_dim: Count | None = None,
        key_size: Count | None = None,
        talking_heads: Talking = "none",
        attention: tuple[Kind, ...] = ("product",),
        pre_norm: bool = False,
        dropout: DecayRate = 0.1,
        recompute: bool = False,
    ) -> None:
        """`similar_share`: of the tokens that a mark would hide, those that a similar one hides (MacBERT: 1); `drop_token`: the share
        of tokens that a training step leaves out; `expected`: a trained model reads the mean of what stood in a token's place; `generator_dim`: the width of ELECTRA's generator, by default half of `dim`.
        """
        super().__init__()
        if objective != "masked" and (similar_share or drop_token):
            raise BadInput(
                f"similar_share and drop_token: of the objective masked, not of {objective}; leave them out"
            )
        if generator_dim is not None and objective != "replaced":
            raise BadInput(f"generator_dim: of the objective replaced, not of {objective}; leave it out")
        self.num_ordinary, self.mark = pad, mask
        self.objective, self.masking, self.rate = objective, masking, rate
        self.similar_share, self.drop_token, self.expected = similar_share, drop_token, expected
        options: dict[str, Any] = {
            "max_length": time, "num_segments": 0, "key_size": key_size, "talking_heads": talking_heads, "attention": attention,
            "pre_norm": pre_norm, "dropout": dropout, "recompute": recompute, "start": "scaled",
        }  # fmt: skip
        width = embedding_dim or dim
        self.discriminator, self.is_replaced = None, None
        own_dim = dim
        if objective == "replaced":
            own_dim = generator_dim or dim // 2
            self.discriminator = Bert(
                num_tokens, dim, num_blocks, num_heads, embedding_dim=width, head=False, **options
            )
            self.is_replaced = nn.Linear(dim, 1)
        self.bert = Bert(num_tokens, own_dim, num_blocks, num_heads, embedding_dim=width, **options)
        if self.discriminator is not None:
            self.discriminator.embeddings.tokens = self.bert.embeddings.tokens
        if similar_share:
            self.register_buffer("similar", torch.arange(num_tokens))

    def phases(self) -> tuple[Phase, ...]:
        """One update; of replaced tokens a generator and a discriminator, which sees what the generator put in that step."""
        masked = Update("masked", self.nats, (self.bert,))
        if self.discriminator is None or self.is_replaced is None:
            return (Phase("masked", (masked,), prepare=self.find_similar if self.similar_share else None),)
        replaced = Update(
            "replaced", self.replaced_nats, (self.discriminator, self.is_replaced), noise="masked"
        )
        return (Phase("masked", (masked, replaced)),)

    def find_similar(self, batches: Iterable[Batch]) -> None:
        """Find for each token the one that stands in the most similar places."""
        contexts = min(NUM_CONTEXTS, self.num_ordinary)
        read = (
            neighbours(x["ids"], x["documents"], self.num_ordinary, contexts)
            for x in islice(batches, NUM_READ)
        )
        self.similar[: self.num_ordinary] = most_similar(torch.stack([*read]).sum(0))

    def nats(self, batch: Batch) -> Loss:
        """Nats a hidden token."""
        if self.objective == "permuted":
            return self._permuted_nats(batch)
        ids, hidden = batch["ids"], self.draw_hidden(batch)
        read = self._corrupted(ids, hidden)
        documents, positions = batch["documents"], batch["positions"]
        if self.drop_token:
            number = max(1, round(ids.shape[1] * (1 - self.drop_token)))
            kept = keep_some(len(ids), ids.shape[1], number, ids.device).rows
            ids, hidden, read, documents, positions = (
                x.gather(1, kept) for x in (ids, hidden, read, documents, positions)
            )
        features = self.bert(read, positions=positions, mask=masks.same_document(documents))
        return token_loss(self.bert.logits(features[hidden]), ids[hidden])

    def replaced_nats(self, batch: Batch) -> Loss:
        """Nats a token of the question whether it was replaced."""
        assert self.discriminator is not None
        assert self.is_replaced is not None
        ids, hidden = batch["ids"], self.draw_hidden(batch)
        with torch.no_grad():
            logits = self._filled(self._corrupted(ids, hidden), batch, hidden)
            chosen = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)
            read = ids.masked_scatter(hidden, chosen)
        places = {"positions": batch["positions"], "mask": masks.same_document(batch["documents"])}
        answers = self.is_replaced(self.discriminator(read, **places)).squeeze(-1)
        right = (read != ids).to(answers.dtype)
        nats = F.binary_cross_entropy_with_logits(answers, right, reduction="none")
        accuracy = ((answers > 0) == (read != ids)).to(nats.dtype)
        return mean_over(nats, self._may(ids), accuracy=accuracy, replaced=right)

    def draw_hidden(self, x: Example) -> Tensor:
        """Which tokens a training hides, bool [n, time]; of a permuted model those that come last in the order."""
        ids = x["ids"]
        words = (
            x["words"]
            if "words" in x and self.masking != "tokens"
            else torch.arange(ids.shape[1]).expand(ids.shape)
        )
        if self.masking == "runs":
            return hide_runs(words, x["documents"], self._may(ids), self.rate)
        return hide_words(words, self._may(ids), self.rate)

    def fill(self, x: Example, hidden: Tensor) -> Tensor:
        """Logits of hidden tokens, [tokens, num_tokens]. Raises BadInput for texts longer than the windows of the training."""
        if x["ids"].shape[1] > self.bert.max_length:
            raise BadInput(
                f"a text of {x['ids'].shape[1]:,} tokens, and the model reads {self.bert.max_length:,} at once; shorten it"
            )
        if self.objective == "permuted":
            places = torch.arange(x["ids"].shape[1]).expand(x["ids"].shape)
            ranks = hidden.long()
            return self._asked(x, ranks, places)[hidden]
        return self._filled(x["ids"].masked_fill(hidden, self.mark), x, hidden)

    def attention(self, x: Example) -> tuple[Tensor, Tensor]:
        """Of texts with nothing hidden, and what the network that fills gaps takes of each token."""
        mask = masks.same_document(x["documents"])
        return x["ids"], self.bert.attention_maps(x["ids"], positions=x["positions"], mask=mask)

    def restore(self, x: Example, keep: Tensor) -> Example:
        """Texts whose tokens where `keep`, bool [n, time], is false are the likeliest ones."""
        likeliest = self.fill(x, ~keep)[:, : self.num_ordinary].argmax(-1)
        return {"ids": x["ids"].masked_scatter(~keep, likeliest)}

    def _may(self, ids: Tensor) -> Tensor:
        """Whether a token may be hidden: no end mark, no padding, and none that the vocabulary lacks."""
        return (ids != UNKNOWN) & (ids < self.num_ordinary)

    def _corrupted(self, ids: Tensor, hidden: Tensor) -> Tensor:
        stand_in = None
        if self.similar_share:
            is_similar = torch.rand(ids.shape, device=ids.device) < self.similar_share
            stand_in = torch.where(is_similar, self.similar[ids], self.mark)
        return corrupted(ids, hidden, self.mark, self.num_ordinary, stand_in)

    def _filled(self, read: Tensor, x: Example, hidden: Tensor) -> Tensor:
        table = self.bert.embeddings.tokens.weight
        if self.expected and not self.training:
            table = expected_embeddings(table, self.mark, self.rate)
        places = {"positions": x["positions"], "mask": masks.same_document(x["documents"])}
        features = functional_call(self.bert, {"embeddings.tokens.weight": table}, (read,), places)
        return self.bert.logits(features[hidden])

    def _permuted_nats(self, batch: Batch) -> Loss:
        """Of the tokens that come last in a random order, each after those before it."""
        ids, (n, time) = batch["ids"], batch["ids"].shape
        order = torch.rand(n, time, device=ids.device).argsort(dim=1, stable=True)
        places = order[:, -max(1, round(time * self.rate)) :]
        logits = self._asked(batch, order.argsort(dim=1), places)
        asked = ids.gather(1, places)
        may = self._may(asked)
        return token_loss(logits[may], asked[may])

    def _asked(self, x: Example, ranks: Tensor, places: Tensor) -> Tensor:
        """Logits of the tokens at places, [n, queries, num_tokens], each after those before it in an order."""
        at = lambda values: torch.cat([values, values.gather(1, places)], 1)
        read = torch.cat([x["ids"], torch.full_like(places, self.mark)], 1)
        mask = masks.two_streams(ranks, places) & masks.same_document(at(x["documents"]))
        features = self.bert(read, positions=at(x["positions"]), mask=mask)
        return self.bert.logits(features[:, ranks.shape[1] :])


def token_loss(logits: Tensor, ids: Tensor) -> Loss:
    """Nats of tokens, [tokens], by logits, [tokens, num_tokens], and how many are the likeliest."""
    nats = F.cross_entropy(logits, ids, reduction="none")
    accuracy = (logits.detach().argmax(-1) == ids).to(nats.dtype)
    return mean_over(nats, torch.ones_like(ids, dtype=torch.bool), accuracy=accuracy)
