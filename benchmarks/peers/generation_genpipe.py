"""The transformer and the decoders of genpipe; run by the Python of the project."""

from collections.abc import Mapping

import torch
from generation_common import END, PAD, START, Shape, Write, main, numbers_of
from torch import Tensor

from genpipe.assembly import keep_freed_memory
from genpipe.capabilities import Example, NextToken, State
from genpipe.nn import masks
from genpipe.nn.bert import Bert
from genpipe.nn.stepping import step_one
from genpipe.sampling import decoding
from genpipe.sampling.marks import Marks

NAMES = {  # of BERT's checkpoints → of genpipe.nn.bert
    "bert.embeddings.word_embeddings": "embeddings.tokens",
    "bert.embeddings.position_embeddings": "embeddings.positions",
    "bert.embeddings.token_type_embeddings": "embeddings.segments",
    "bert.embeddings.LayerNorm": "embeddings.norm",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "norm_one",
    "intermediate.dense": "wide",
    "output.dense": "narrow",
    "output.LayerNorm": "norm_two",
    "cls.predictions.transform.dense": "head.layer",
    "cls.predictions.transform.LayerNorm": "head.norm",
    "cls.predictions.bias": "head.bias",
    "bert.encoder.layer.": "blocks.",
}


class Causal(NextToken):
    """A language model that goes on with what it reads."""

    given = ("texts",)

    def __init__(self, network: Bert) -> None:
        self.network = network

    def begin(self, given: Example, n: int) -> State:
        """What stands before the start mark is read at once."""
        read = given["texts"][:, :-1]
        return self.network.read(read, mask=masks.causal(read.shape[1]))[1]

    def next(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """[n] → [n, num_tokens]."""
        hidden, state = step_one(self.network, ids, state, 0)
        return self.network.logits(hidden), state


def network_of(a: Shape) -> Bert:
    """The network with the numbers of all."""
    network = Bert(a.num_tokens, a.dim, a.num_blocks, a.num_heads, max_length=a.num_positions).eval()
    numbers, found = numbers_of(a), dict[str, Tensor]()
    for name, tensor in numbers.items():
        if ".self." in name:
            continue
        for old, new in NAMES.items():
            name = name.replace(old, new, 1)
        found[name] = tensor
    for block in range(a.num_blocks):
        for kind in ("weight", "bias"):
            parts = [
                numbers[f"bert.encoder.layer.{block}.attention.self.{part}.{kind}"]
                for part in ("query", "key", "value")
            ]
            found[f"blocks.{block}.attention.project.{kind}"] = torch.cat(parts)
    network.load_state_dict(found)
    return network


def make(a: Shape) -> Mapping[str, Write]:
    """Greedy and beam search."""
    keep_freed_memory()  # as for every model that a command opens
    model, marks = Causal(network_of(a)), Marks((START,), END, PAD)

    def write(texts: Tensor, method: str) -> Tensor:
        return decoding.write(model, len(texts), {"texts": texts}, marks, method, a.new, beam=a.beam)["ids"]

    return {"greedy": lambda texts: write(texts, "greedy"), "beam": lambda texts: write(texts, "beam")}


main(make)
