"""Similarity of sentences: an encoder learns to put texts of one group near each other (Su, 2018, archives/5743).

The state of a GRU after the last token (Cho et al., 2014, arXiv:1406.1078), or the mean over the tokens of a transformer, trained by one of the
losses of genpipe/nn/margins.py; what classes are for in training is thrown away, and texts are ranked by their cosines. Departs from the
article: the state of the GRU is read at the last token, not after the padding; weights are normalised where they are used, not after a step.
"""

from typing import Annotated, Literal, NamedTuple, cast, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Embeds, Example
from genpipe.errors import BadInput
from genpipe.nn import margins, masks
from genpipe.nn.bert import Bert
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update, mean_over

OfClasses = Literal["softmax", "am", "arc", "sphere", "large", "simpler", "centre"]
OfPairs = Literal["siamese", "triplet", "info_nce"]
Size = Annotated[float, Field(ge=0)]


class Usual(NamedTuple):
    """What a loss takes where nothing is said; None: it has no such number."""

    margin: float | None
    scale: float | None


USUAL: dict[str, Usual] = {
    "softmax": Usual(None, 30),
    "am": Usual(0.35, 30),
    "arc": Usual(0.5, 30),
    "sphere": Usual(4, None),
    "large": Usual(4, None),
    "simpler": Usual(None, 30),
    "centre": Usual(None, None),
    "siamese": Usual(0, None),
    "triplet": Usual(0.2, None),
    "info_nce": Usual(None, 20),
}


class Similarity(Recipe, Embeds):
    """Features of texts whose cosines say how near they are in meaning."""

    def __init__(
        self,
        num_tokens: int,
        num_groups: int,
        max_length: int,
        loss: OfClasses | OfPairs = "am",
        encoder: Literal["gru", "transformer"] = "gru",
        dim: Count = 128,
        embedding_dim: Count | None = None,
        num_blocks: Count = 1,
        num_heads: Count = 4,
        margin: Size | None = None,
        scale: Size | None = None,
        hardest: Count | None = None,
        centre_weight: Size = 0.5,
        dropout: DecayRate = 0.0,
    ) -> None:
        """`num_blocks`: layers of the GRU, or blocks of the transformer; `hardest`: how many negatives of a text count in a loss of pairs,
        those of the largest cosine; `centre_weight`: λ of the centre loss.
        """
        super().__init__()
        self.loss, self.hardest, self.centre_weight = loss, hardest, centre_weight
        self.margin = _chosen("margin", margin, loss, USUAL[loss].margin)
        self.scale = _chosen("scale", scale, loss, USUAL[loss].scale)
        if hardest is not None and loss not in get_args(OfPairs):
            raise BadInput(
                f"hardest: of the losses {', '.join(get_args(OfPairs))}, not of {loss}; leave it out"
            )
        if loss in ("sphere", "large") and (self.margin != int(self.margin) or self.margin < 1):
            raise BadInput(
                f"margin: {loss} multiplies the angle by a whole number, not by {self.margin:g}; take 2, 3 or 4"
            )
        width = embedding_dim or dim
        self.bert, self.embedding, self.gru, self.dropout = None, None, None, nn.Dropout(dropout)
        if encoder == "gru":
            self.embedding = nn.Embedding(num_tokens, width)
            self.gru = nn.GRU(width, dim, num_blocks, batch_first=True)
        else:
            self.bert = Bert(
                num_tokens, dim, num_blocks, num_heads, max_length=max_length, num_segments=0, embedding_dim=width,
                pre_norm=True, dropout=dropout, head=False, start="scaled",
            )  # fmt: skip
        self.classes = (
            nn.Linear(dim, num_groups, bias=loss == "centre") if loss in get_args(OfClasses) else None
        )
        self.centres = nn.Parameter(torch.zeros(num_groups, dim)) if loss == "centre" else None

    def phases(self) -> tuple[Phase, ...]:
        """One update; classes are those of the groups."""
        return (Phase("similarity", (Update("similarity", self.compare, (self,)),)),)

    def compare(self, batch: Batch) -> Loss:
        """The loss a text. Losses of pairs compare the texts of a slice, and count those with a text of their group and one of another."""
        features, groups = self._features(batch), batch["groups"]
        if self.classes is not None:
            return self._classified(features, self.classes, groups)
        pairs = margins.compared(features, groups, self.hardest)
        right = margins.is_nearest_right(pairs).to(features.dtype)
        return mean_over(self._of_pairs(pairs), margins.has_both(pairs), accuracy=right)

    def embed(self, x: Example) -> Tensor:
        """Features of length 1, [n, dim], of `ids`, int64 [n, time], and `lengths`, int64 [n], each 1 or more."""
        return F.normalize(self._features(x))

    def _features(self, x: Example) -> Tensor:
        ids, lengths = x["ids"], x["lengths"]
        if self.bert is not None:
            mask = masks.of_lengths(lengths, ids.shape[1])
            hidden, tokens = self.bert(ids, mask=mask), cast(Tensor, mask.tokens).unsqueeze(2)
            return (hidden * tokens).sum(1) / lengths.unsqueeze(1).to(hidden.dtype)
        assert self.embedding is not None
        assert self.gru is not None
        states, _ = self.gru(self.dropout(self.embedding(ids)))
        return states[torch.arange(len(ids), device=ids.device), lengths - 1]

    def _classified(self, features: Tensor, classes: nn.Linear, groups: Tensor) -> Loss:
        vectors = classes.weight
        if self.loss == "centre":
            assert self.centres is not None
            logits = classes(features)
            nats = F.cross_entropy(logits, groups, reduction="none")
            nats = nats + self.centre_weight * margins.to_centres(features, self.centres, groups)
        else:
            logits = margins.cosines(features, vectors)
            nats = self._of_classes(features, vectors, logits, groups)
        right = (logits.detach().argmax(1) == groups).to(nats.dtype)
        return mean_over(nats, torch.ones_like(groups, dtype=torch.bool), accuracy=right)

    def _of_classes(self, features: Tensor, vectors: Tensor, cosine: Tensor, groups: Tensor) -> Tensor:
        """Nats, [n], by which the margin makes a text harder to classify."""
        match self.loss:
            case "am":
                psi = lambda c: margins.am_psi(c, self.margin)
            case "arc":
                psi = lambda c: margins.arc_psi(c, self.margin)
            case "simpler":
                psi = margins.simpler_psi
            case "sphere" | "large":
                psi = lambda c: margins.multiple_psi(c, int(self.margin))
            case _:
                psi = lambda c: c
        if self.loss == "large":
            return margins.large_margin_nats(features, vectors, groups, psi)
        scale = features.norm(dim=1, keepdim=True) if self.loss == "sphere" else self.scale
        return margins.margin_nats(cosine, groups, psi, scale)

    def _of_pairs(self, pairs: margins.Compared) -> Tensor:
        match self.loss:
            case "siamese":
                return margins.siamese(pairs, self.margin)
            case "triplet":
                return margins.triplet(pairs, self.margin)
            case _:
                return margins.info_nce(pairs, self.scale)


def _chosen(name: str, value: float | None, loss: str, usual: float | None) -> float:
    """A number of a loss, by default the usual one; 0 where the loss has none. Raises BadInput where it has none and one is given."""
    if usual is None and value is not None:
        raise BadInput(f"{name}: {loss} has none; leave it out")
    return (usual if value is None else value) or 0.0
