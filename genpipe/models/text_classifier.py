"""The class of a text, by the transformer of genpipe/nn/bert.py: from scratch, or from the weights of a masked language model.

Features are the mean over the tokens of a text; `start: models/masked_lm` begins with a trained network of the same shape, and every
weight is then trained further (fine-tuning: Devlin et al., 2018, arXiv:1810.04805). Departs from BERT: the mean of all tokens in place
of the first one, since the documents of `masked_lm` have no token [CLS].
"""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Attends, Classifies, Embeds, Example
from genpipe.nn import masks
from genpipe.nn.attention import Talking
from genpipe.nn.bert import Bert
from genpipe.nn.synthesizer import Kind
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class TextClassifier(Recipe, Classifies, Embeds, Attends):
    """The likeliest class of a text."""

    def __init__(
        self,
        num_tokens: int,
        num_classes: int,
        max_length: int,
        dim: Count = 128,
        num_blocks: Count = 2,
        num_heads: Count = 4,
        embedding_dim: Count | None = None,
        hidden_dim: Count | None = None,
        key_size: Count | None = None,
        talking_heads: Talking = "none",
        attention: tuple[Kind, ...] = ("product",),
        pre_norm: bool = True,
        dropout: DecayRate = 0.1,
    ) -> None:
        """The shape of the network must be that of the model in `start`: `dim`, `num_blocks`, `num_heads`, `embedding_dim`, `pre_norm`,
        and `batches: {max_length}` as its windows are long. `hidden_dim` is the width of the layer of a block, by default 4 `dim`.
        """
        super().__init__()
        self.bert = Bert(
            num_tokens, dim, num_blocks, num_heads, max_length=max_length, num_segments=0, embedding_dim=embedding_dim or dim,
            hidden_dim=hidden_dim, key_size=key_size, talking_heads=talking_heads, attention=attention, pre_norm=pre_norm,
            dropout=dropout, head=False, start="scaled",
        )  # fmt: skip
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Linear(dim, num_classes)

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of the class."""
        return (Phase("likelihood", (Update("nll", self.cross_entropy, (self,)),)),)

    def cross_entropy(self, batch: Batch) -> Loss:
        """Nats a text, and the share of texts whose likeliest class is right."""
        logits, labels = self.classify(batch), batch["labels"]
        accuracy = (logits.detach().argmax(-1) == labels).to(logits.dtype).mean()
        return Loss(F.cross_entropy(logits, labels), {"accuracy": accuracy}, logits)

    def embed(self, x: Example) -> Tensor:
        """The mean over its tokens, [n, dim], of `ids`, int64 [n, time], and `lengths`, int64 [n], each 1 or more."""
        mask = masks.of_lengths(x["lengths"], x["ids"].shape[1])
        hidden, tokens = self.bert(x["ids"], mask=mask), cast(Tensor, mask.tokens).unsqueeze(2)
        return (hidden * tokens).sum(1) / x["lengths"].unsqueeze(1).to(hidden.dtype)

    def classify(self, x: Example) -> Tensor:
        """Logits, [n, num_classes]."""
        return self.classes(self.dropout(self.embed(x)))

    def attention(self, x: Example) -> tuple[Tensor, Tensor]:
        """Of whole texts."""
        mask = masks.of_lengths(x["lengths"], x["ids"].shape[1])
        return x["ids"], self.bert.attention_maps(x["ids"], mask=mask)
