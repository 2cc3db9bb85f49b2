"""The couplet robot: the lower line as a tag on each character of the upper line (Su, archives/6270).

Embedding, dropout, gated residual convolutions, softmax. Both lines have one length and aligned positions, so a batch
of one length needs no padding. Cross-entropy is in nats a character. With `ngram` a model of lower lines is trained beside it, which
shares nothing with the tagger: n-grams and tones, for a search of whole lines (genpipe/sampling/lines.py).
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Example, RanksLines
from genpipe.nn.gated import GatedResidualConv
from genpipe.nn.lines import LineModel
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update, mean_over

Size = Annotated[int, Field(ge=0)]


class Couplet(Recipe, RanksLines):
    """Answers a line of verse with a line of the same length; `ngram` is the n of n-grams of lower lines, 0 without."""

    def __init__(
        self,
        num_tokens: int,
        start: int = 0,
        embedding_dim: Count = 128,
        num_layers: Count = 6,
        dropout: DecayRate = 0.25,
        ngram: Size = 0,
    ) -> None:
        super().__init__()
        if ngram == 1:
            raise ValueError("ngram: 0 for none, or 2 and more: single characters make no line")
        self.embedding = nn.Embedding(num_tokens, embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(GatedResidualConv(embedding_dim) for _ in range(num_layers)))
        self.logits = nn.Linear(embedding_dim, num_tokens)
        # made last, so that the tagger begins alike with and without it
        self.lines = LineModel(num_tokens, embedding_dim, ngram - 1, start) if ngram else None

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of the lower line given the upper one, and of lower lines by themselves."""
        tagger = Update("nll", self.cross_entropy, (self.embedding, self.layers, self.logits))
        if self.lines is None:
            return (Phase("likelihood", (tagger,)),)
        return (Phase("likelihood", (tagger, Update("lines", self.line_loss, (self.lines,)))),)

    def cross_entropy(self, batch: Batch) -> Loss:
        """Nats a character of the lower line."""
        logits = self.tag(batch)
        accuracy = (logits.detach().argmax(-1) == batch["target"]).to(logits.dtype).mean()
        return Loss(F.cross_entropy(logits.flatten(0, 1), batch["target"].flatten()), {"accuracy": accuracy})

    def tag(self, x: Example) -> Tensor:
        """Logits, [batch, time, num_tokens]."""
        hidden = self.dropout(self.embedding(x["source"])).transpose(1, 2)
        return self.logits(self.layers(hidden).transpose(1, 2))

    def line_loss(self, batch: Batch) -> Loss:
        """Nats a character of lower lines by n-grams, by frequency, and by the rules of tones: a sum of parts that share nothing."""
        assert self.lines is not None
        upper, lower, lengths = batch["source"], batch["target"], batch["target_lengths"]
        keep = torch.arange(lower.shape[1], device=lower.device) < lengths.unsqueeze(1)
        following, alone = self.lines.nats(lower)
        tones = self.lines.rules(upper, lower, lengths)
        return mean_over(following + alone + tones, keep, ngram=following, unigram=alone, tones=tones)

    def history(self) -> int:
        """Characters that an n-gram looks back at; 0 without n-grams."""
        return 0 if self.lines is None else self.lines.order

    def follow(self, history: Tensor) -> Tensor:
        """How much likelier each character is after `history`, [..., order], than anywhere: log-ratios, [..., num_tokens]."""
        assert self.lines is not None
        return self.lines.follow(history) - self.lines.frequencies()

    def histories(self, lines: Tensor) -> Tensor:
        """The characters before each place of lines, [n, time, order]."""
        assert self.lines is not None
        return self.lines.histories(lines)

    def levels(self) -> Tensor:
        """The logit of the level tone of each character, [num_tokens]."""
        assert self.lines is not None
        return self.lines.level
