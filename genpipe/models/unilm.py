"""UniLM: a target for a source, or an answer for a question and passages, by a mask alone (Dong et al., 2019, arXiv:1905.03197; Su, archives/6933, archives/7115).

One transformer reads `<s> source <sep> target </s>`: source tokens see the whole source and nothing of the target, target
tokens see the source and what was written before them. Trained by the cross-entropy of the target and its end mark, in nats.
Departs from the paper as archives/6933 does: the target is predicted token after token, not restored behind masks. Departs from both:
no pre-training of its own (`start` takes the weights of another model), and an end mark apart from the mark after the source.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genpipe.capabilities import Attends, Example, Votes
from genpipe.errors import BadInput
from genpipe.nn import masks
from genpipe.nn.attention import Talking
from genpipe.nn.bert import Activation, Bert, Cache
from genpipe.nn.masking import taken
from genpipe.nn.sources import Part, Source, are_tokens, contains, ended, joined
from genpipe.nn.states import mapped
from genpipe.nn.stepping import step_one
from genpipe.nn.votes import has_vote, scores
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update, mean_over

Reads = Literal["source", "passages"]
CONDITIONS: dict[Reads, tuple[str, ...]] = {
    "source": ("source", "source_lengths"),
    "passages": ("question", "question_lengths", "passages", "passage_lengths"),
}


class State(NamedTuple):
    """After a source and some tokens of its target. With passages each tensor is [n, passages, …], else [n, …]."""

    first: Tensor | None  # logits of the first token, [n, …, num_tokens], until it is asked for
    cache: Cache
    votes: Tensor | None  # which passages have an answer, bool [n, passages]; None before the first token


class UniLM(Recipe, Votes, Attends):
    """Writes a target under the condition of its source, or an answer under that of a question and passages."""

    def __init__(
        self, num_tokens: int, start: int, end: int, sep: int, max_length: int, reads: Reads = "source",
        width: Count = 128, num_blocks: Count = 4, num_heads: Count = 4, key_size: Count | None = None,
        embedding_dim: Count | None = None, talking_heads: Talking = "none", pre_norm: bool = False, activation: Activation = "gelu",
        dropout: DecayRate = 0.1, num_positions: Count | None = None, recompute: bool = False,
    ) -> None:  # fmt: skip
        """`reads` is what a target is written for: `source` on pairs, `passages` on questions with passages.

        `num_positions`, of all that is read and written together, follows from the longest text of the data by default.
        """
        super().__init__()
        self.start, self.end, self.sep, self.reads = start, end, sep, reads
        self.given = CONDITIONS[reads]
        parts = 2 if reads == "source" else 3
        self.num_positions = num_positions or parts * (max_length + 1)
        if self.num_positions < parts * (max_length + 1):
            raise BadInput(
                f"num_positions: {self.num_positions} are less than the {parts * (max_length + 1)} that texts of up to "
                f"{max_length} tokens take; raise it, or lower train.batches.max_length"
            )
        self.bert = Bert(
            num_tokens, width, num_blocks, num_heads, max_length=self.num_positions, key_size=key_size,
            embedding_dim=embedding_dim, talking_heads=talking_heads, pre_norm=pre_norm, activation=activation, dropout=dropout,
            recompute=recompute, start="scaled",
        )  # fmt: skip

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of targets."""
        return (Phase("likelihood", (Update("nll", self.cross_entropy, (self,)),)),)

    def cross_entropy(self, batch: Batch) -> Loss:
        """Nats a token of the target, its end mark included, and how often the likeliest token is right.

        Of a question one passage is read, drawn at random; where the answer is no part of it, the target is empty.
        """
        source, target = self.item(batch)
        logits, ids = self.logits(source, target), ended(target, self.end)
        nats = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
        is_right = (logits.detach().argmax(-1) == ids).to(nats.dtype)
        return mean_over(nats, are_tokens(ids, target.lengths + 1), accuracy=is_right)

    def item(self, batch: Batch) -> tuple[Source, Part]:
        """What a training reads and writes of each row of a batch."""
        self._require(batch)
        if self.reads == "source":
            return self._source(batch), Part(batch["target"], batch["target_lengths"])
        lengths = batch["passage_lengths"]
        chosen = torch.rand(lengths.shape, device=lengths.device).masked_fill(lengths == 0, -1).argmax(1)
        rows = torch.arange(len(lengths), device=lengths.device)
        passage = Part(batch["passages"][rows, chosen], lengths[rows, chosen])
        answer = Part(batch["answer"], batch["answer_lengths"])
        lengths = answer.lengths * contains(passage, answer)
        question = Part(batch["question"], batch["question_lengths"])
        return joined([passage, question], self.start, self.sep), Part(answer.ids, lengths)

    def logits(self, source: Source, target: Part) -> Tensor:
        """Logits of the first target token, of those after it and of the end mark, [n, 1 + time, num_tokens]."""
        hidden = self.bert(*self._together(source, target))
        read, time = source.ids.shape[1], target.ids.shape[1]
        behind = torch.arange(read, read + time, device=hidden.device)
        places = torch.cat([source.last.unsqueeze(1), behind.expand(len(hidden), -1)], 1)
        return self.bert.logits(taken(hidden, places))

    def attention(self, x: Example) -> tuple[Tensor, Tensor]:
        """A source, of a question one passage, with its target, and what each token takes of those that it sees."""
        ids, segments, positions, mask = self._together(*self.item(x))
        return ids, self.bert.attention_maps(ids, segments, positions, mask)

    def _together(self, source: Source, target: Part) -> tuple[Tensor, Tensor, Tensor, masks.Mask]:
        """Ids, segments and positions of sources with their targets, [n or 1, time], and which tokens see which."""
        read, time = source.ids.shape[1], target.ids.shape[1]
        device = source.ids.device
        ids = torch.cat([source.ids, target.ids], 1)
        behind = source.lengths.unsqueeze(1) + torch.arange(time, device=device)
        positions = torch.cat([source.positions, behind], 1)
        tokens = torch.cat([source.tokens, are_tokens(target.ids, target.lengths)], 1)
        segments = (torch.arange(read + time, device=device) >= read).long().unsqueeze(0)
        return ids, segments, positions, self.rule(segments) & masks.of_tokens(tokens)

    def rule(self, segments: Tensor) -> masks.Mask:
        """Which tokens see which, from their segments, int64 [1, time]; padding is none of it."""
        return masks.prefix(segments)

    def begin(self, given: Example, n: int) -> State:
        """The source is read once. Raises BadInput where it leaves no position to write at."""
        source = self._source(given)
        self._require_room(source)
        hidden, cache = self.bert.read(
            source.ids, positions=source.positions, mask=masks.of_tokens(source.tokens)
        )
        first = self.bert.logits(hidden[torch.arange(len(hidden)), source.last])
        if self.reads == "source":
            return State(first, cache, None)
        each = lambda tensor: tensor.unflatten(0, (n, -1))
        is_there = given["passage_lengths"] > 0
        # until the first token is asked for, every passage that is there may vote
        return State(each(first), mapped(cache, each), is_there)

    def next(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """As of a next-token model. The first ids are start marks, which stand for the mark after the source: that was read."""
        if self.reads == "source":
            return self._next(ids, state)
        logits, votes, state = self.next_of_each(ids, state)
        return scores(logits.double().softmax(-1), votes, self.end).log().to(logits.dtype), state

    def next_of_each(self, ids: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """As of a model that votes."""
        num = state.votes.shape[1] if state.votes is not None else 1
        together = lambda tensor: tensor.flatten(0, 1)
        flat = State(mapped(state.first, together), mapped(state.cache, together), None)
        logits, after = self._next(ids.repeat_interleave(num), flat)
        each = lambda tensor: tensor.unflatten(0, (-1, num))
        logits, cache, votes = each(logits), mapped(after.cache, each), state.votes
        if state.first is not None and votes is not None:
            votes = has_vote(logits, votes, self.end)
        assert votes is not None
        return logits, votes, State(None, cache, votes)

    def _next(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits after each row's newest token, [rows, num_tokens]; a text ends where its positions end."""
        if state.first is not None:
            return state.first, State(None, state.cache, state.votes)
        place = state.cache["next"]
        is_full = place >= self.num_positions
        hidden, cache = step_one(self.bert, ids, state.cache, 1, place.clamp(max=self.num_positions - 1))
        logits = self.bert.logits(hidden)
        if is_full.any():
            only_end = torch.full_like(logits[:1], -torch.inf)
            only_end[:, self.end] = 0
            logits = torch.where(is_full.unsqueeze(1), only_end, logits)
        return logits, State(None, cache, state.votes)

    def _source(self, x: Example) -> Source:
        """What is read before a target; with passages a row for each, those of one question after another."""
        if self.reads == "source":
            return joined([Part(x["source"], x["source_lengths"])], self.start, self.sep)
        num = x["passages"].shape[1]
        passages = Part(x["passages"].flatten(0, 1), x["passage_lengths"].flatten())
        question = Part(x["question"].repeat_interleave(num, 0), x["question_lengths"].repeat_interleave(num))
        return joined([passages, question], self.start, self.sep)

    def _require(self, batch: Batch) -> None:
        for key in self.given:
            if key not in batch:
                kind = "pairs" if self.reads == "source" else "passages"
                raise BadInput(
                    f"train.network.reads: {self.reads} is for data of the kind {kind}, and this data has: {', '.join(batch)}"
                )

    def _require_room(self, source: Source) -> None:
        longest = int(source.lengths.max())
        if longest >= self.num_positions:
            raise BadInput(
                f"a text of {longest} tokens with its marks, and this model reads and writes {self.num_positions} in all; "
                "shorten it, or train the model with more train.network.num_positions"
            )
