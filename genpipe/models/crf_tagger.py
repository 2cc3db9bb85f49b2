"""Tags of tokens by convolutions and a conditional random field: Chinese word segmentation as tags B, M, E, S of characters.

Embeddings of characters and of pairs of neighbours, gated residual convolutions, and a linear chain over their tags (Lafferty et al.,
2001; tags of segmentation: Xue, *Chinese Word Segmentation as Character Tagging*, 2003). Minimised is −ln p(tags | text), in nats a token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genpipe.capabilities import Example, Tags
from genpipe.nn.crf import LinearChainCRF
from genpipe.nn.gated import GatedResidualConv
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update, mean_over

FOLLOWING = {"B": "ME", "M": "ME", "E": "BS", "S": "BS"}  # what may come after a tag of a word


class CRFTagger(Recipe, Tags):
    """The likeliest sequence of tags of a text."""

    def __init__(
        self, num_tokens: int, num_tags: int, classes: Sequence[str] = (), embedding_dim: Count = 128, num_layers: Count = 4,
        num_pairs: Count = 16_384, pair_dim: Count = 32, dropout: DecayRate = 0.2,
    ) -> None:  # fmt: skip
        """`num_pairs` is the size of the table of pairs of neighbouring tokens, whose ids are hashed into it, `pair_dim` its width.

        Where `classes`, the names of the tags, are B, E, M and S, a word that begins also ends.
        """
        super().__init__()
        self.num_pairs = num_pairs
        self.tokens, self.pairs = nn.Embedding(num_tokens, embedding_dim), nn.Embedding(num_pairs, pair_dim)
        self.join = nn.Linear(embedding_dim + pair_dim, embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(GatedResidualConv(embedding_dim) for _ in range(num_layers))
        self.emissions = nn.Linear(embedding_dim, num_tags)
        self.chain = LinearChainCRF(num_tags, _forbidden(classes))

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of the tags."""
        return (Phase("likelihood", (Update("nll", self.nats, (self,)),)),)

    def nats(self, batch: Batch) -> Loss:
        """Nats a token, and how often the largest emission, the tag without its neighbours', is right."""
        emissions, lengths, tags = self._emissions(batch), batch["lengths"], batch["tags"]
        keep = _own(tags, lengths)
        whole = -self.chain.log_prob(emissions, tags, lengths)
        # of a whole text, in equal parts on its tokens, so that a step weighs tokens alike
        nats = (whole / lengths).unsqueeze(1).expand(tags.shape)
        is_right = (emissions.detach().argmax(-1) == tags).to(nats.dtype)
        return mean_over(nats, keep, accuracy=is_right)

    def tag(self, x: Example) -> Tensor:
        """The score of the best sequence through each tag, [n, time, num_tags]; their argmax is the best one."""
        return self.chain.max_marginals(self._emissions(x), x["lengths"])

    def _emissions(self, x: Example) -> Tensor:
        ids = x["ids"]
        own = _own(ids, x["lengths"]).unsqueeze(2)
        before = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1)
        pairs = (before * 1_000_003 + ids) % self.num_pairs
        read = torch.cat([self.tokens(ids), self.pairs(pairs)], 2)
        hidden = self.join(self.dropout(read)) * own
        for layer in self.layers:
            # a convolution reads zeros behind a text, whatever its batch has there
            hidden = layer(hidden.transpose(1, 2)).transpose(1, 2) * own
        return self.emissions(hidden)


def _own(values: Tensor, lengths: Tensor) -> Tensor:
    """Which places of rows, [n, time], are tokens."""
    return torch.arange(values.shape[1], device=values.device) < lengths.unsqueeze(1)


def _forbidden(classes: Sequence[str]) -> list[tuple[int, int]]:
    if sorted(classes) != sorted(FOLLOWING):
        return []
    return [
        (i, j)
        for i, first in enumerate(classes)
        for j, second in enumerate(classes)
        if second not in FOLLOWING[first]
    ]
