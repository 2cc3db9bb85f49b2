"""Checkpoints of Hugging Face's BERT family as the transformer of genpipe/nn/bert.py, and back.

A checkpoint is a folder with config.json, model.safetensors (or its shards) and, often, vocab.txt. Pickled weights are not read.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genpipe.errors import BadInput
from genpipe.files import existing, read_json, write_json
from genpipe.nn.bert import Bert, Block
from genpipe.nn.checkpoint_names import (
    ACTIVATIONS,
    FAMILIES,
    HEADS,
    NAMES,
    OFFSET,
    expanded,
    is_weight,
    names_in,
    renamed_norm,
)


@dataclass(frozen=True)
class Pretrained:
    """A network with the tokens of its ids, where these are known, and tensors that it has no place for, as a pooler's."""

    model: Bert
    vocabulary: tuple[str, ...] = ()
    rest: Mapping[str, Tensor] = field(default_factory=dict)  # by their names below the prefix of the model


def load_pretrained(directory: Path, keep: Sequence[int] | None = None) -> Pretrained:
    """The network of a checkpoint, in evaluation mode; with the tokens `keep` alone, in that order.

    Raises BadInput where the folder is no checkpoint of the family, or has pickled weights only.
    """
    config = _config(directory)
    family = config["model_type"]
    tensors = {
        re.sub(r"LayerNorm\.(gamma|beta)$", renamed_norm, k): v for k, v in _tensors(directory).items()
    }
    prefix = f"{family}." if any(name.startswith(f"{family}.") for name in tensors) else ""
    head = HEADS[family]
    with_head = f"{head['head.layer']}.weight" in tensors
    model = Bert(**_options(config, family, directory), head=with_head).eval()
    names = {ours: [prefix + name for name in theirs] for ours, theirs in names_in(model).items()}
    names |= {ours: [theirs] for ours, theirs in expanded(head, model).items()}
    if family == "roberta":
        key = prefix + NAMES["embeddings.positions.weight"]
        tensors[key] = tensors[key][OFFSET:]
    state = {
        ours: torch.cat([_taken(tensors, name, directory) for name in theirs])
        for ours, theirs in names.items()
    }
    _fill(model, state, directory)
    used = {name for theirs in names.values() for name in theirs}
    rest = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name not in used and is_weight(name)
    }
    found = Pretrained(model, _vocabulary(directory, model), rest)
    return found if keep is None else keep_tokens(found, keep)


def save_pretrained(pretrained: Pretrained, directory: Path) -> None:
    """Write a checkpoint that `transformers` loads: BERT's, or ELECTRA's where embeddings are narrower than the network.

    Raises BadInput for a network with parts that these do not have, and where the folder has files already.
    """
    model = pretrained.model
    _require_plain(model)
    if directory.exists() and any(directory.iterdir()):
        raise BadInput(f"{directory}: not empty; name a new folder")
    family = "bert" if model.embeddings.widen is None else "electra"
    prefix = f"{family}." if model.head is not None else ""
    state, tensors = model.state_dict(), {}
    for ours, theirs in names_in(model).items():
        parts = state[ours].chunk(len(theirs))
        tensors |= {prefix + name: part for name, part in zip(theirs, parts, strict=True)}
    tensors |= {theirs: state[ours] for ours, theirs in expanded(HEADS[family], model).items()}
    if model.embeddings.segments is None:
        tensors[prefix + NAMES["embeddings.segments.weight"]] = torch.zeros(
            1, model.embeddings.tokens.embedding_dim
        )
    tensors |= {prefix + name: value for name, value in pretrained.rest.items()}
    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous().clone() for name, value in tensors.items()},
        directory / "model.safetensors",
        {"format": "pt"},
    )
    write_json(directory / "config.json", _written_config(model, family))
    if pretrained.vocabulary:
        (directory / "vocab.txt").write_text(
            "".join(f"{token}\n" for token in pretrained.vocabulary), encoding="utf-8"
        )


def keep_tokens(pretrained: Pretrained, keep: Sequence[int]) -> Pretrained:
    """The same network that knows the tokens `keep` alone, which are numbered in that order: embeddings and bias are cut."""
    table = pretrained.model.embeddings.tokens
    wrong = [number for number in keep if not 0 <= number < table.num_embeddings]
    if wrong or not keep:
        raise BadInput(
            f"keep: one or more of the {table.num_embeddings:,} tokens, not {wrong[0] if wrong else 'none'}"
        )
    model, kept = pretrained.model, torch.tensor(list(keep))
    table.weight = torch.nn.Parameter(table.weight.detach()[kept])
    table.num_embeddings = len(kept)
    if model.head is not None:
        model.head.bias = torch.nn.Parameter(model.head.bias.detach()[kept])
    words = tuple(pretrained.vocabulary[number] for number in keep) if pretrained.vocabulary else ()
    return Pretrained(model, words, pretrained.rest)


def ids_of(tokens: Iterable[str], vocabulary: Sequence[str], unknown: str = "[UNK]") -> list[int]:
    """The ids of tokens in the vocabulary of a checkpoint, which `keep_tokens` takes; that of `unknown` where it lacks one."""
    numbers = {token: number for number, token in enumerate(vocabulary)}
    if unknown not in numbers:
        raise BadInput(
            f"no token {unknown!r} in the vocabulary of the checkpoint; name the one that stands for unknown tokens"
        )
    return [numbers.get(token, numbers[unknown]) for token in tokens]


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


def _options(config: Mapping[str, Any], family: str, directory: Path) -> dict[str, Any]:
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
        }
    except KeyError as error:
        raise BadInput(
            f"{directory / 'config.json'}: no {error.args[0]}; fetch the checkpoint again"
        ) from None


def _written_config(model: Bert, family: str) -> dict[str, Any]:
    first = cast(Block, model.blocks[0])
    named = {ours: theirs for theirs, ours in reversed(list(ACTIVATIONS.items()))}
    classes = {"bert": ("BertForMaskedLM", "BertModel"), "electra": ("ElectraForMaskedLM", "ElectraModel")}
    config = {
        "architectures": [classes[family][model.head is None]],
        "model_type": family,
        "vocab_size": model.embeddings.tokens.num_embeddings,
        "hidden_size": first.norm_one.normalized_shape[0],
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": first.attention.num_heads,
        "intermediate_size": first.wide.out_features,
        "hidden_act": named[first.activation_name],
        "max_position_embeddings": model.max_length,
        "type_vocab_size": 1
        if model.embeddings.segments is None
        else model.embeddings.segments.num_embeddings,
        "layer_norm_eps": model.embeddings.norm.eps,
        "hidden_dropout_prob": first.dropout.p,
        "attention_probs_dropout_prob": first.attention.dropout,
        "position_embedding_type": "absolute",
    }
    return config | ({"embedding_size": model.embeddings.tokens.embedding_dim} if family == "electra" else {})


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


def _vocabulary(directory: Path, model: Bert) -> tuple[str, ...]:
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
    size = model.embeddings.tokens.num_embeddings
    if len(words) != size:
        raise BadInput(
            f"{directory}: {len(words):,} tokens in its vocabulary and {size:,} embeddings; fetch the checkpoint again"
        )
    return tuple(words)


def _taken(tensors: Mapping[str, Tensor], name: str, directory: Path) -> Tensor:
    if name not in tensors:
        raise BadInput(
            f"{directory}: no tensor {name}, which config.json describes; fetch the checkpoint again"
        )
    return tensors[name]


def _fill(model: Bert, state: Mapping[str, Tensor], directory: Path) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.shape != state[name].shape:
            raise BadInput(
                f"{directory}: {name} has the shape {list(state[name].shape)}, and config.json describes {list(tensor.shape)}"
            )
    model.load_state_dict(state)


def _require_plain(model: Bert) -> None:
    first = cast(Block, model.blocks[0])
    parts = {
        "norms before the layers": model.norm is not None,
        "conditions": first.norm_one.scale is not None,
        "heads that talk": first.attention.before is not None or first.attention.after is not None,
        "a Synthesizer": first.attention.kinds != ("product",),
        "a key_size of its own": first.attention.key_size != first.attention.head_size,
    }
    for what, has in parts.items():
        if has:
            raise BadInput(
                f"the network has {what}, which no checkpoint of transformers' BERT has; save it with genpipe train"
            )
