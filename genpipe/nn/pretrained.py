"""Checkpoints of Hugging Face's BERT family as the transformer of genpipe/nn/bert.py, and back.

A checkpoint is a folder with config.json, model.safetensors (or its shards) and, often, vocab.txt. Pickled weights are not read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor

from genpipe.bert_files import ACTIVATIONS, NAMES, names_of, read_bert
from genpipe.errors import BadInput
from genpipe.files import write_json
from genpipe.nn.bert import Bert, Block


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
    files = read_bert(directory)
    model = Bert(**files.options).eval()
    _fill(model, files.state, directory)
    found = Pretrained(model, files.vocabulary, files.rest)
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
    for ours, value in state.items():
        theirs = names_of(ours, family)
        before = "" if ours.startswith("head.") else prefix
        tensors |= {before + name: part for name, part in zip(theirs, value.chunk(len(theirs)), strict=True)}
    if model.embeddings.segments is None:
        tensors[prefix + NAMES["embeddings.segments.weight"]] = torch.zeros(
            1, model.embeddings.tokens.embedding_dim
        )
    tensors |= {
        (prefix if name.startswith("pooler.") else "") + name: value
        for name, value in pretrained.rest.items()
    }
    directory.mkdir(parents=True, exist_ok=True)
    # save_file would keep all others from reading it
    content = save({name: value.contiguous().clone() for name, value in tensors.items()}, {"format": "pt"})
    (directory / "model.safetensors").write_bytes(content)
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


def _fill(model: Bert, state: Mapping[str, Tensor], directory: Path) -> None:
    for name, tensor in model.state_dict().items():
        if name not in state:
            raise BadInput(
                f"{directory}: no tensor of {name}, which config.json describes; fetch the checkpoint again"
            )
        if tensor.shape != state[name].shape:
            raise BadInput(
                f"{directory}: {name} has the shape {list(state[name].shape)}, and config.json describes {list(tensor.shape)}"
            )
    model.load_state_dict({name: state[name] for name in model.state_dict()})


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
