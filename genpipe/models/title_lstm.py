"""Titles by LSTMs: sequence to sequence with a prior that copies (Su, 2018, archives/5861).

An encoder of two BiLSTMs, a decoder of two LSTMs under layer norms that a summary of the source modulates, attention over the source, and a prior for
the tokens that the source has. Cross-entropy of the target and its end mark, in nats. With `directions: both` a second decoder writes from the last
token to the first, and each looks at what the other has written (Zhou, Zhang, Zong, 2019, arXiv:1905.04847). Departs from the article: a mark
after the source, norms that start plain, and a partner that writes greedily, in a training too (`partner: right` is the article's).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Example, NextToken
from genpipe.errors import BadInput
from genpipe.nn.cross_attention import CrossAttention, Memory
from genpipe.nn.recurrent import LSTM, BiLSTM, LSTMState, turned
from genpipe.nn.self_modulated import Modulation, SelfModulatedNorm
from genpipe.nn.sources import Part, are_tokens, ended
from genpipe.params.blocks import Count
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update, mean_over

SLOPE = 0.2  # of LeakyReLU
NARROWER = 4  # times are the hidden layers of a modulation


class Source(NamedTuple):
    """What is read: `hidden`, [n, time, dim]; `tokens`, bool [n, time]; `summary`, [n, dim]; `prior`, [n, num_tokens], or None."""

    hidden: Tensor
    tokens: Tensor
    summary: Tensor
    prior: Tensor | None


class Writing(NamedTuple):
    """A decoder after some tokens: a state and a modulation a layer, and keys and values of the source and of the other decoder."""

    layers: list[LSTMState]
    modulations: list[Modulation]
    source: Memory
    other: Memory | None


class State(NamedTuple):
    """After a source and some tokens of its target; the last three are of the decoder from right to left, or None."""

    tokens: Tensor  # which places of the source are no padding, bool [n, time]
    prior: Tensor | None  # [n, num_tokens]
    left: Writing
    right: Writing | None
    newest: Tensor | None  # what it wrote last, int64 [n]
    counts: Tensor | None  # which of its steps came before its end mark was read, bool [n, steps]


class CopyPrior(nn.Module):
    """(y + exp(a) ⊙ χ + t)/2, where χ is 1 for the tokens of the source and 0 for others: [n, time, num_tokens].

    a and t are learned, [num_tokens] each, and start at zero.
    """

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(num_tokens))
        self.shift = nn.Parameter(torch.zeros(num_tokens))

    def of(self, source: Part) -> Tensor:
        """exp(a) ⊙ χ + t of a source, [n, num_tokens]; padding counts as no token."""
        found = self.log_scale.new_zeros(len(source.ids), len(self.log_scale))
        tokens = are_tokens(source.ids, source.lengths).to(found.dtype)
        found = found.scatter_reduce(1, source.ids, tokens, "amax")
        return self.log_scale.exp() * found + self.shift


class Decoder(nn.Module):
    """Norms and LSTMs by turns, then attention over the source, and over the states of another decoder where there is one."""

    def __init__(self, dim: int, num_layers: int, num_heads: int, sees_other: bool) -> None:
        super().__init__()
        self.dim = dim
        self.norms = nn.ModuleList(
            SelfModulatedNorm(dim, dim, max(1, dim // NARROWER)) for _ in range(num_layers + 1)
        )
        self.layers = nn.ModuleList(LSTM(dim, dim) for _ in range(num_layers))
        self.attention = CrossAttention(dim, num_heads)
        self.other = CrossAttention(dim, num_heads) if sees_other else None
        self.out = nn.Linear((3 if sees_other else 2) * dim, dim)

    def begin(self, source: Source) -> Writing:
        """Before the first token."""
        zeros = torch.zeros_like(source.summary)
        return Writing(
            [(zeros, zeros) for _ in self.layers],
            [norm.modulation(source.summary) for norm in self._norms()],
            self.attention.read(source.hidden),
            None,
        )

    def read(self, x: Tensor, writing: Writing) -> tuple[Tensor, Writing]:
        """States after more tokens, [n, time, dim], of their embeddings, and what to go on with."""
        norms, after = self._norms(), list[LSTMState]()
        for norm, layer, state, modulation in zip(
            norms, self.layers, writing.layers, writing.modulations, strict=False
        ):
            x, state = layer(norm(x, modulation), state)
            after.append(state)
        return norms[-1](x, writing.modulations[-1]), writing._replace(layers=after)

    def features(self, states: Tensor, writing: Writing, tokens: Tensor, seen: Tensor | None) -> Tensor:
        """What the classifier reads, [n, time, dim]; `tokens` as of a source, `seen`, bool, which states of the other decoder count."""
        parts = [states, self.attention(states, writing.source, tokens[:, None, None])]
        if self.other is not None and writing.other is not None and seen is not None:
            parts.append(self.other(states, writing.other, seen))
        return F.leaky_relu(self.out(torch.cat(parts, -1)), SLOPE)

    def watch(self, states: Tensor, writing: Writing) -> Writing:
        """More states of the other decoder, [n, time, dim], to look at."""
        assert self.other is not None
        return writing._replace(other=self.other.read(states, writing.other))

    def _norms(self) -> list[SelfModulatedNorm]:
        return [norm for norm in self.norms if isinstance(norm, SelfModulatedNorm)]


class TitleLSTM(Recipe, NextToken):
    """Writes a target under the condition of its source."""

    given = ("source", "source_lengths")

    def __init__(
        self, num_tokens: int, pad: int, start: int, end: int, sep: int, width: Count = 128, num_layers: Count = 2,
        num_heads: Count = 8, prior: bool = True, directions: Literal["one", "both"] = "one",
        partner: Literal["written", "right"] = "written",
    ) -> None:  # fmt: skip
        """`prior`: tokens of the source are likelier, by as much as is learned. `directions`: one decoder, or two.

        `partner`: what the other of two decoders reads in a training: what it writes itself, or the right target, from whose middle on
        each decoder sees what it must write. BadInput for an odd width.
        """
        super().__init__()
        if width % 2:
            raise BadInput(f"width: must be even, for two directions of the encoder, not {width}")
        self.pad, self.start, self.end, self.sep, self.partner = pad, start, end, sep, partner
        self.embedding = nn.Embedding(num_tokens, width)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_layers))
        self.layers = nn.ModuleList(BiLSTM(width) for _ in range(num_layers))
        sees_other = directions == "both"
        self.left = Decoder(width, num_layers, num_heads, sees_other)
        self.right = Decoder(width, num_layers, num_heads, sees_other) if sees_other else None
        self.classes = nn.Linear(width, num_tokens)
        self.prior = CopyPrior(num_tokens) if prior else None

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of targets."""
        return (Phase("likelihood", (Update("nll", self.cross_entropy, (self,)),)),)

    def cross_entropy(self, batch: Batch) -> Loss:
        """Nats a token of the target, its end mark included, and how often the likeliest token is right; of two decoders the means of both."""
        target = Part(batch["target"], batch["target_lengths"])
        found = self.logits(batch, target)
        asked = (ended(target, self.end), ended(self.backwards(target), self.start))
        nats, right = [], []
        for logits, ids in zip(found, asked, strict=False):
            losses = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
            nats.append(losses)
            right.append((logits.detach().argmax(-1) == ids).to(losses.dtype))
        keep = are_tokens(asked[0], target.lengths + 1)
        return mean_over(torch.stack(nats).mean(0), keep, accuracy=torch.stack(right).mean(0))

    def logits(self, x: Example, target: Part) -> list[Tensor]:
        """Logits of the first target token, of those after it and of the end mark, [n, 1 + time, num_tokens]; then those from right to left."""
        source = self.read(x)
        onward = F.pad(target.ids, (1, 0), value=self.start)
        if self.right is None:
            states, writing = self.left.read(self.embedding(onward), self.left.begin(source))
            return [self._classified(self.left.features(states, writing, source.tokens, None), source.prior)]
        back = F.pad(self.backwards(target).ids, (1, 0), value=self.end)
        beside = (back, onward)
        if self.partner == "written":
            beside = (
                self._written_beside(source, self.left, onward, self.right, (self.end, self.start)),
                self._written_beside(source, self.right, back, self.left, (self.start, self.end)),
            )
        return [
            self._logits_beside(source, self.left, onward, self.right, beside[0], self.start),
            self._logits_beside(source, self.right, back, self.left, beside[1], self.end),
        ]

    def read(self, x: Example) -> Source:
        """The encoder, of `source`, int64 [n, time], and its lengths, int64 [n]; a mark follows each source, so that none is empty."""
        part = Part(x["source"], x["source_lengths"])
        ids, lengths = ended(part, self.sep), part.lengths + 1
        hidden = self.embedding(ids)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            hidden = layer(norm(hidden), lengths)
        tokens = are_tokens(ids, lengths)
        summary = hidden.masked_fill(~tokens.unsqueeze(2), -torch.inf).amax(1)
        return Source(hidden, tokens, summary, None if self.prior is None else self.prior.of(part))

    def backwards(self, target: Part) -> Part:
        """A target from its last token to its first."""
        return Part(turned(target.ids, target.lengths), target.lengths)

    def begin(self, given: Example, n: int) -> State:
        """The source is read once."""
        source = self.read(given)
        left = self.left.begin(source)
        if self.right is None:
            return State(source.tokens, source.prior, left, None, None, None)
        newest = torch.full((n,), self.end, device=source.hidden.device)
        counts = source.tokens[:, :0]
        return State(source.tokens, source.prior, left, self.right.begin(source), newest, counts)

    def next(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """As of a next-token model. With two decoders that from right to left writes its likeliest token at each step."""
        states, left = self.left.read(self._embedded(ids), state.left)
        if self.right is None or state.right is None or state.newest is None or state.counts is None:
            features = self.left.features(states, left, state.tokens, None)
            return self._classified(features, state.prior)[:, 0], state._replace(left=left)
        others, right = self.right.read(self._embedded(state.newest), state.right)
        left, right = self.left.watch(others, left), self.right.watch(states, right)
        counts = torch.cat([state.counts, (state.newest != self.start).unsqueeze(1)], 1)
        features = self.left.features(states, left, state.tokens, counts[:, None, None])
        back = self._classified(self._partners(self.right, others, right, state.tokens), state.prior)
        newest = self._likeliest(back[:, 0], state.newest, (self.end, self.start))
        after = State(state.tokens, state.prior, left, right, newest, counts)
        return self._classified(features, state.prior)[:, 0], after

    def _logits_beside(
        self, source: Source, decoder: Decoder, ids: Tensor, other: Decoder, others: Tensor, over: int
    ) -> Tensor:
        """Logits of a decoder that reads ids, int64 [n, time], beside another one, whose states count before the mark of its end."""
        states, writing = decoder.read(self.embedding(ids), decoder.begin(source))
        beside, _ = other.read(self.embedding(others), other.begin(source))
        time = ids.shape[1]
        # what comes before in both orders; padding comes after all tokens in both
        causal = torch.ones(time, time, dtype=torch.bool, device=ids.device).tril()
        seen = causal & (others != over).unsqueeze(1)
        features = decoder.features(states, decoder.watch(beside, writing), source.tokens, seen.unsqueeze(1))
        return self._classified(features, source.prior)

    @torch.no_grad()
    def _written_beside(
        self, source: Source, decoder: Decoder, ids: Tensor, other: Decoder, marks: tuple[int, int]
    ) -> Tensor:
        """What the other decoder writes while this one reads ids, int64 [n, time]; of the same shape, its first mark first."""
        reading, writing = decoder.begin(source), other.begin(source)
        texts = [torch.full_like(ids[:, 0], marks[0])]
        for column in ids[:, :-1].unbind(1):
            states, reading = decoder.read(self._embedded(column), reading)
            others, writing = other.read(self._embedded(texts[-1]), writing)
            writing = other.watch(states, writing)
            logits = self._classified(self._partners(other, others, writing, source.tokens), source.prior)
            texts.append(self._likeliest(logits[:, 0], texts[-1], marks))
        return torch.stack(texts, 1)

    def _partners(self, decoder: Decoder, states: Tensor, writing: Writing, tokens: Tensor) -> Tensor:
        """Features after one more token of a decoder that writes beside one that reads: it sees all that was read."""
        assert writing.other is not None
        seen = tokens.new_ones(len(states), 1, 1, writing.other[0].shape[2])
        return decoder.features(states, writing, tokens, seen)

    def _likeliest(self, logits: Tensor, newest: Tensor, marks: tuple[int, int]) -> Tensor:
        """The likeliest token after the newest ones, [n], of a text between two marks; its end mark stays."""
        outside = torch.tensor([self.pad, marks[0]], device=logits.device)
        return torch.where(newest == marks[1], newest, logits.index_fill(-1, outside, -torch.inf).argmax(-1))

    def _embedded(self, ids: Tensor) -> Tensor:
        return self.embedding(ids.unsqueeze(1))

    def _classified(self, features: Tensor, prior: Tensor | None) -> Tensor:
        logits = self.classes(features)
        return logits if prior is None else (logits + prior.unsqueeze(1)) / 2
