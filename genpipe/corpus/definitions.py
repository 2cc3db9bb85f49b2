"""What a Hugging Face tokenizer file must hold, so that a count is a function of the text and the file, and loses nothing.

What its normalizer and its pre-tokenizer change or remove, white space above all, is the file's own definition. Truncation
and padding in the file are not applied (see genpipe.corpus.tokenizers).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import pre_tokenizers

from genpipe.errors import BadInput

Definition = Mapping[str, Any]  # the parsed file
MODELS = {"bpe": "BPE", "wordpiece": "WordPiece", "unigram": "Unigram"}


def check_definition(definition: Definition, kind: str, name: str) -> None:
    """Raise BadInput with the file's `name` where a model is of another kind, draws at random or drops characters."""
    model = definition["model"]
    if model["type"] != MODELS[kind]:
        raise BadInput(
            f"{name}: its model must have the type {MODELS[kind]}, not {model['type']}; name another tokenizer or file"
        )
    if model.get("dropout"):
        raise BadInput(
            f"{name}: model.dropout is {model['dropout']}, so it cuts at random and each count differs; "
            "set model.dropout to null"
        )
    if repeated := _repeated_ids(definition):
        raise BadInput(f"{name}: more than one token has the id {repeated[0]}; give each its own id")
    if kind == "unigram":
        _check_unigram(model, name)
    elif not (kind == "bpe" and model.get("unk_token") is None and _covers_bytes(definition)):
        _check_unknown(model, name)


def _check_unknown(model: Definition, name: str) -> None:
    unknown = model.get("unk_token")
    if unknown is None:
        raise BadInput(
            f"{name}: model.unk_token is not set, so characters outside its vocabulary are dropped; "
            "set it to a token of the vocabulary, or take a byte-level file with all 256 bytes"
        )
    if unknown not in model["vocab"]:
        raise BadInput(
            f"{name}: model.unk_token {unknown!r} is not in model.vocab; add it, or name a token of the vocabulary"
        )


def _check_unigram(model: Definition, name: str) -> None:
    number = model.get("unk_id")
    if number is None or not 0 <= number < len(model["vocab"]):
        raise BadInput(
            f"{name}: model.unk_id is {number}, which is no entry of model.vocab, so it stops at unknown characters; "
            "set it to the index of the unknown token"
        )


def _covers_bytes(definition: Definition) -> bool:
    """Whether any text can be spelled: the vocabulary has every byte, and the text reaches the model as bytes."""
    model = definition["model"]
    vocabulary = model["vocab"]
    if model.get("byte_fallback") and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        return True
    steps = (*_steps(definition.get("normalizer")), *_steps(definition.get("pre_tokenizer")))
    is_byte_level = any(step["type"] == "ByteLevel" for step in steps)
    return is_byte_level and all(byte in vocabulary for byte in pre_tokenizers.ByteLevel.alphabet())


def _steps(component: Definition | None) -> Iterator[Definition]:
    """A normalizer or pre-tokenizer, and those it is a sequence of."""
    if component is None:
        return
    yield component
    for part in component.get("normalizers") or component.get("pretokenizers") or ():
        yield from _steps(part)


def _repeated_ids(definition: Definition) -> list[int]:
    """Ids of several tokens of the vocabulary: which of their names is shown would change from run to run."""
    vocabulary = definition["model"]["vocab"]
    if not isinstance(vocabulary, Mapping):  # of Unigram: a list, whose indices are the ids
        return []
    return [number for number, tokens in Counter(vocabulary.values()).items() if tokens > 1]
