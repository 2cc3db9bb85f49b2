"""What parts of the transformer of genpipe/nn/bert.py are called in checkpoints of Hugging Face's BERT family."""

import re
from collections.abc import Mapping

from genpipe.nn.bert import Activation, Bert

ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
FAMILIES = ("bert", "electra", "roberta")
# Ours → theirs, below the prefix of the model; NUMBER stands for the block.
NAMES = {
    "embeddings.tokens.weight": "embeddings.word_embeddings.weight",
    "embeddings.positions.weight": "embeddings.position_embeddings.weight",
    "embeddings.segments.weight": "embeddings.token_type_embeddings.weight",
    "embeddings.norm": "embeddings.LayerNorm",
    "embeddings.widen": "embeddings_project",
    "blocks.NUMBER.attention.out": "encoder.layer.NUMBER.attention.output.dense",
    "blocks.NUMBER.norm_one": "encoder.layer.NUMBER.attention.output.LayerNorm",
    "blocks.NUMBER.wide": "encoder.layer.NUMBER.intermediate.dense",
    "blocks.NUMBER.narrow": "encoder.layer.NUMBER.output.dense",
    "blocks.NUMBER.norm_two": "encoder.layer.NUMBER.output.LayerNorm",
}
PROJECTED = [f"encoder.layer.NUMBER.attention.self.{part}" for part in ("query", "key", "value")]
HEADS = {  # of the families, with the names of the whole model
    "bert": {"head.layer": "cls.predictions.transform.dense", "head.norm": "cls.predictions.transform.LayerNorm", "head.bias": "cls.predictions.bias"},
    "electra": {"head.layer": "generator_predictions.dense", "head.norm": "generator_predictions.LayerNorm", "head.bias": "generator_lm_head.bias"},
    "roberta": {"head.layer": "lm_head.dense", "head.norm": "lm_head.layer_norm", "head.bias": "lm_head.bias"},
}  # fmt: skip
OFFSET = 2  # positions of RoBERTa begin behind that of padding, which is 1


def names_in(model: Bert) -> dict[str, list[str]]:
    """Of each tensor of the network but the head's, the tensors of theirs, without a prefix, that it is one after another."""
    names = {ours: [theirs] for ours, theirs in expanded(NAMES, model).items()}
    for number in range(len(model.blocks)):
        for end in ("weight", "bias"):
            ours = f"blocks.{number}.attention.project.{end}"
            names[ours] = [f"{name.replace('NUMBER', str(number))}.{end}" for name in PROJECTED]
    return names


def expanded(table: Mapping[str, str], model: Bert) -> dict[str, str]:
    """A table of names with a row for each tensor that the network has."""
    rows = {}
    for name in model.state_dict():
        number = re.search(r"^blocks\.(\d+)\.", name)
        plain = re.sub(r"^blocks\.\d+\.", "blocks.NUMBER.", name)
        stem, _, end = plain.rpartition(".")
        theirs = table.get(plain) or (f"{table[stem]}.{end}" if stem in table else None)
        if theirs is not None:
            rows[name] = theirs.replace("NUMBER", number[1] if number else "")
    return rows


def is_weight(name: str) -> bool:
    """Whether a tensor is no copy of another: positions are numbers from 0, the output is tied to the embeddings."""
    return not name.endswith(
        ("position_ids", "token_type_ids", "decoder.weight", "decoder.bias", "lm_head.weight")
    )


def renamed_norm(found: re.Match[str]) -> str:
    """The names of old checkpoints."""
    return "LayerNorm." + {"gamma": "weight", "beta": "bias"}[found[1]]
