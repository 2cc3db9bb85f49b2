"""The files of a checkpoint of Hugging Face's BERT family: what they say of the network, and its tensors by genpipe's names.

A folder with config.json, model.safetensors (or its shards) and, often, vocab.txt. Pickled weights are not read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from genpipe.errors import BadInput
from genpipe.files import existing, read_json

ACTIVATIONS: Mapping[str, str] = {
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


@dataclass(frozen=True)
class BertFiles:
    """What a checkpoint holds."""

    options: Mapping[str, Any]  # arguments of genpipe.nn.bert.Bert
    state: Mapping[str, Tensor]  # by the names in that network
    rest: Mapping[
        str, Tensor
    ]  # what has no place there, as a pooler, by its own names without the prefix of the model
    vocabulary: tuple[str, ...]  # tokens by their ids; empty where no file says them


def read_bert(directory: Path) -> BertFiles:
    """The files of a folder. Raises BadInput where it is no checkpoint of the family, or has pickled weights only."""
    config = _config(directory)
    family = config["model_type"]
    found = {re.sub(r"LayerNorm\.(gamma|beta)$", _renamed_norm, k): v for k, v in _tensors(directory).items()}
    prefix = f"{family}." if any(name.startswith(f"{family}.") for name in found) else ""
    tensors = {name.removeprefix(prefix): value for name, value in found.items() if _is_weight(name)}
    table = {theirs: ours for ours, theirs in {**NAMES, **HEADS[family]}.items()}
    state: dict[str, Tensor] = {}
    for name in list(tensors):
        if (ours := _renamed(name, table)) is not None:
            state[ours] = tensors.pop(name)
    for first in [
        name for name in tensors if re.fullmatch(PROJECTED[0].replace("NUMBER", r"\d+") + r"\.\w+", name)
    ]:
        parts = [first.replace("self.query", f"self.{part}") for part in ("query", "key", "value")]
        if all(part in tensors for part in parts):
            number, end = first.split(".")[2], first.rpartition(".")[2]
            state[f"blocks.{number}.attention.project.{end}"] = torch.cat(
                [tensors.pop(part) for part in parts]
            )
    if family == "roberta" and "embeddings.positions.weight" in state:
        state["embeddings.positions.weight"] = state["embeddings.positions.weight"][OFFSET:]
    options = _options(config, family, "head.layer.weight" in state, directory)
    return BertFiles(options, state, tensors, _vocabulary(directory, options["num_tokens"]))


def names_of(ours: str, family: str) -> list[str]:
    """The tensors of theirs that a tensor of the network is one after another, below the prefix but for those of the head."""
    if ".attention.project." in ours:
        number, end = ours.split(".")[1], ours.rpartition(".")[2]
        return [f"{name.replace('NUMBER', number)}.{end}" for name in PROJECTED]
    name = _renamed(ours, {**NAMES, **HEADS[family]})
    return [] if name is None else [name]


def _renamed(name: str, table: Mapping[str, str]) -> str | None:
    """A name by a table of whole names, or of those without their last part, in which NUMBER stands for a block's."""
    number = re.search(r"\.(\d+)\.", name)
    plain = re.sub(r"\.\d+\.", ".NUMBER.", name)
    stem, _, end = plain.rpartition(".")
    found = table.get(plain) or (f"{table[stem]}.{end}" if stem in table else None)
    return found and found.replace("NUMBER", number[1] if number else "")


def _config(directory: Path) -> dict[str, Any]:
    path = existing(directory / "config.json", "name the folder of a checkpoint of Hugging Face")
    config = read_json(path)
    family = config.get("model_type") if isinstance(config, dict) else None
    if family not in FAMILIES:
        raise BadInput(f"{path}: model_type {family!r}; of the family there is: {', '.join(FAMILIES)}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise BadInput(
            f"{path}: positions are {config['position_embedding_type']}; the network has absolute ones only"
        )
    if config.get("hidden_act") not in ACTIVATIONS:
        raise BadInput(f"{path}: hidden_act {config.get('hidden_act')!r}; there is: {', '.join(ACTIVATIONS)}")
    return config


def _options(config: Mapping[str, Any], family: str, with_head: bool, directory: Path) -> dict[str, Any]:
    """The arguments of the network that a configuration describes."""
    try:
        return {
            "num_tokens": config["vocab_size"],
            "dim": config["hidden_size"],
            "num_blocks": config["num_hidden_layers"],
            "num_heads": config["num_attention_heads"],
            "max_length": config["max_position_embeddings"] - (OFFSET if family == "roberta" else 0),
            "num_segments": config["type_vocab_size"],
            "embedding_dim": config.get("embedding_size"),
            "hidden_dim": config["intermediate_size"],
            "dropout": config.get("hidden_dropout_prob", 0.1),
            "activation": ACTIVATIONS[config["hidden_act"]],
            "eps": config["layer_norm_eps"],
            "head": with_head,
        }
    except KeyError as error:
        raise BadInput(
            f"{directory / 'config.json'}: no {error.args[0]}; fetch the checkpoint again"
        ) from None


def _tensors(directory: Path) -> dict[str, Tensor]:
    whole, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if not whole.exists() and not index.exists():
        pickled = sorted(
            path.name for pattern in ("*.bin", "*.pt", "*.ckpt*") for path in directory.glob(pattern)
        )
        found = (
            f"there is {pickled[0]}, which may hold code and is not read; convert it"
            if pickled
            else "fetch the checkpoint again"
        )
        raise BadInput(f"{directory}: no model.safetensors; {found}")
    names = [whole.name] if whole.exists() else sorted(set(read_json(index)["weight_map"].values()))
    tensors: dict[str, Tensor] = {}
    for name in names:
        try:
            tensors |= load_file(existing(directory / Path(name).name, "fetch the checkpoint again"))
        except SafetensorError as error:
            raise BadInput(
                f"{directory / name}: not a whole safetensors file: {error}; fetch it again"
            ) from None
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _vocabulary(directory: Path, size: int) -> tuple[str, ...]:
    """The lines of vocab.txt, or the tokens of vocab.json by their ids; nothing where there is neither."""
    lines, numbered = directory / "vocab.txt", directory / "vocab.json"
    if lines.exists():
        words = lines.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    elif numbered.exists():
        words = [
            token
            for token, _ in sorted(
                json.loads(numbered.read_text(encoding="utf-8")).items(), key=lambda pair: pair[1]
            )
        ]
    else:
        return ()
    if len(words) != size:
        raise BadInput(
            f"{directory}: {len(words):,} tokens in its vocabulary and {size:,} embeddings; fetch the checkpoint again"
        )
    return tuple(words)


def _is_weight(name: str) -> bool:
    """Whether a tensor is no copy of another: positions are numbers from 0, the output is tied to the embeddings."""
    return not name.endswith(
        ("position_ids", "token_type_ids", "decoder.weight", "decoder.bias", "lm_head.weight")
    )


def _renamed_norm(found: re.Match[str]) -> str:
    """The names of old checkpoints."""
    return "LayerNorm." + {"gamma": "weight", "beta": "bias"}[found[1]]
