"""A language model that classes or a vector steer through the norms of its network: Conditional Layer Normalization (Su, 2020, archives/7124).

A causal transformer writes a text token after token. Each of its layer norms has a scale and a shift that follow a condition: the
sum of one vector for each class that is asked for, so several conditions (verse form and dynasty) steer at once, and of a linear map of
the vector that data of captions have beside a text, such as features of an image. Cross-entropy of the tokens and of the end mark, in nats. Departs from the article: no pre-trained BERT unless `start` names one, and the network normalises
before each layer by default.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Attends, Example, LogProb, NextToken
from genpipe.errors import BadInput
from genpipe.nn import masks
from genpipe.nn.attention import Talking
from genpipe.nn.bert import Bert, Cache
from genpipe.nn.sources import Part, are_tokens, ended
from genpipe.nn.starts import Start
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update, mean_over

State = tuple[Tensor, Cache]  # the condition, [n, condition_dim], and what was read


class ConditionalLM(Recipe, NextToken, LogProb, Attends):
    """Writes texts under one or several classes, or a vector: `given` names them as the data does."""

    def __init__(
        self, num_tokens: int, start: int, end: int, conditions: Mapping[str, Sequence[str]] | None = None,
        num_classes: int | None = None, max_length: Count = 128, width: Count = 128, num_blocks: Count = 4, num_heads: Count = 4,
        condition_dim: Count = 64, bottleneck: Count | None = None, key_size: Count | None = None, embedding_dim: Count | None = None,
        talking_heads: Talking = "none", pre_norm: bool = True, dropout: DecayRate = 0.0, num_positions: Count | None = None,
        weights: Start = "bert", recompute: bool = False, vector_dim: int | None = None,
    ) -> None:  # fmt: skip
        """`max_length` is that of the data, so no text that is written is longer; BadInput where the data has neither classes nor vectors.

        `num_positions` may be more than a text takes, as in a network to start from. `weights`: how the network begins
        (genpipe/nn/starts.py).
        """
        super().__init__()
        self.start, self.end, self.max_length = start, end, max_length
        sizes = {name: len(classes) for name, classes in (conditions or {}).items()}
        self.sizes = sizes or ({"labels": num_classes} if num_classes else {})
        if not self.sizes and not vector_dim:
            raise BadInput(
                "the data has no classes to write under; take data with a label, name conditions in its encoding, or take texts with "
                "vectors (features in params.yaml)"
            )
        self.given = (*self.sizes, *(("vector",) if vector_dim else ()))
        positions = num_positions or max_length + 1
        if positions <= max_length:
            raise BadInput(
                f"num_positions: {positions} are less than the {max_length + 1} that texts of up to {max_length} tokens take; "
                "raise it, or lower train.batches.max_length"
            )
        self.bert = Bert(
            num_tokens, width, num_blocks, num_heads, max_length=positions, key_size=key_size, embedding_dim=embedding_dim,
            talking_heads=talking_heads, pre_norm=pre_norm, condition_dim=condition_dim, bottleneck=bottleneck, dropout=dropout,
            recompute=recompute, start=weights,
        )  # fmt: skip
        # of deviation 1, unlike the weights of the network: the gradients of the maps of a condition grow with it
        self.classes = nn.ModuleDict(
            {name: nn.Embedding(size, condition_dim) for name, size in self.sizes.items()}
        )
        self.vector_dim, self.vector = vector_dim, None
        if vector_dim:
            self.vector = nn.Linear(vector_dim, condition_dim)
            nn.init.normal_(self.vector.weight, std=vector_dim**-0.5)  # of deviation 1 too

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of the texts under their classes."""
        return (Phase("likelihood", (Update("nll", self.cross_entropy, (self,)),)),)

    def cross_entropy(self, batch: Batch) -> Loss:
        """Nats a token, the end mark included, and how often the likeliest token is right."""
        nats, is_right, _ = self._compared(batch, self.condition(batch))
        return mean_over(nats, torch.ones_like(nats), accuracy=is_right)

    def condition(self, x: Example) -> Tensor:
        """The sum of the vectors of the classes and of the map of `vector`, [n, condition_dim]; nothing is checked.

        Numbers of `vector`, [n, vector_dim], are brought to mean 0 and variance 1 in each row first, so its scale does not count.
        """
        parts = [self.classes[name](x[name]) for name in self.sizes]
        if self.vector is not None:
            parts.append(self.vector(F.layer_norm(x["vector"], x["vector"].shape[1:])))
        return torch.stack(parts).sum(0)

    def log_prob(self, x: Example) -> Tensor:
        """Log-probability of each text and its end in nats, [n], under its classes."""
        nats, _, rows = self._compared(x, self.condition(self._required(x)))
        return nats.new_zeros(len(x["ids"])).index_add(0, rows, -nats)

    def attention(self, x: Example) -> tuple[Tensor, Tensor]:
        """The start mark and the tokens of texts, and what each takes of those before it."""
        read = F.pad(x["ids"], (1, 0), value=self.start)
        mask = masks.causal(read.shape[1], read.device)
        return read, self.bert.attention_maps(read, mask=mask, condition=self.condition(self._required(x)))

    def begin(self, given: Example, n: int) -> State:
        """Nothing is read yet. Raises BadInput where a class is missing, or is not one of the data's."""
        return self.condition(self._required(given)), self.bert.empty(n)

    def next(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next token; after `max_length` tokens only the end mark is left."""
        condition, cache = state
        places = cache["next"].clamp(max=self.max_length)  # beyond it stands nothing that counts
        hidden, cache = self.bert.step(
            ids.unsqueeze(1), cache, positions=places.unsqueeze(1), condition=condition
        )
        logits = self.bert.logits(hidden[:, 0], condition)
        others = torch.arange(logits.shape[1], device=logits.device) != self.end
        is_full = (places >= self.max_length).unsqueeze(1)
        return logits.masked_fill(is_full & others, -torch.inf), (condition, cache)

    def _compared(self, x: Example, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each token and end mark of all rows, [tokens]: its nats, whether it is the likeliest, and its row."""
        ids = x["ids"]
        if ids.shape[1] > self.max_length:
            raise BadInput(
                f"a text of {ids.shape[1]:,} tokens, and the model knows texts of up to {self.max_length:,}; shorten it"
            )
        read = F.pad(ids, (1, 0), value=self.start)
        hidden = self.bert(read, mask=masks.causal(read.shape[1], ids.device), condition=condition)
        # logits of padding would be a third of the work
        rows, places = are_tokens(read, x["lengths"] + 1).nonzero(as_tuple=True)
        target = ended(Part(ids, x["lengths"]), self.end)[rows, places]
        logits = self.bert.logits(hidden[rows, places], condition[rows])
        nats = F.cross_entropy(logits, target, reduction="none").masked_fill(places >= self.max_length, 0)
        return nats, (logits.detach().argmax(-1) == target).to(nats.dtype), rows

    def _required(self, x: Example) -> Example:
        """`x`, or the error that names a condition that is missing, a class that there is not, or a vector of another size."""
        for name in self.given:
            if name not in x:
                raise BadInput(f"the condition {name!r} is missing; it takes: {', '.join(self.given)}")
        if self.vector is not None and tuple(x["vector"].shape[1:]) != (self.vector_dim,):
            raise BadInput(
                f"vector: this model takes vectors of {self.vector_dim} numbers, not of {list(x['vector'].shape[1:])}"
            )
        for name, size in self.sizes.items():
            outside = x[name][(x[name] < 0) | (x[name] >= size)]
            if len(outside):
                raise BadInput(
                    f"{name}: the classes of this model are 0 to {size - 1}, not {int(outside[0])}"
                )
        return x
