"""The couplet robot: the lower line as a tag on each character of the upper line (Su, archives/6270).

Embedding, dropout, gated residual convolutions, softmax. Both lines have one length and aligned positions, so a batch
of one length needs no padding. Cross-entropy is in nats a character.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Example, Tags
from genpipe.nn.gated import GatedResidualConv
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class Couplet(Recipe, Tags):
    """Answers a line of verse with a line of the same length."""

    def __init__(
        self, num_tokens: int, embedding_dim: Count = 128, num_layers: Count = 6, dropout: DecayRate = 0.25
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(GatedResidualConv(embedding_dim) for _ in range(num_layers)))
        self.logits = nn.Linear(embedding_dim, num_tokens)

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of the lower line."""
        return (Phase("likelihood", (Update("nll", self.cross_entropy, (self,)),)),)

    def cross_entropy(self, batch: Batch) -> Loss:
        """Nats a character of the lower line."""
        logits = self.tag(batch)
        accuracy = (logits.detach().argmax(-1) == batch["target"]).to(logits.dtype).mean()
        return Loss(F.cross_entropy(logits.flatten(0, 1), batch["target"].flatten()), {"accuracy": accuracy})

    def tag(self, x: Example) -> Tensor:
        """Logits, [batch, time, num_tokens]."""
        hidden = self.dropout(self.embedding(x["source"])).transpose(1, 2)
        return self.logits(self.layers(hidden).transpose(1, 2))
