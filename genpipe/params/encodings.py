"""Blocks of text as token ids."""

from typing import Literal, Self

from pydantic import Field, model_validator

from genpipe.params.blocks import Block, Name, RelativePath

FIELDS: dict[str, tuple[frozenset[str], ...]] = {  # what a kind is made of, or may be made of
    "stream": (frozenset({"text"}),),
    "pairs": (frozenset({"source", "target"}),),
    "passages": (frozenset({"question", "passages", "answer"}),),
    "groups": (frozenset({"text", "group"}),),
    "tagged": (frozenset({"text", "tags"}), frozenset({"text", "label"})),
}


class Encoding(Block):
    """A data set of text as token ids, by the tokenizer and the vocabulary of a corpus."""

    dataset: Name
    corpus: Name
    kind: Literal["stream", "pairs", "passages", "groups", "tagged"]
    fields: dict[str, str] = Field(description="part of an example -> field of the data set's records")
    carry: tuple[RelativePath, ...] = Field(
        (), description="files of the data set that are copied as they are"
    )

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if set(self.fields) not in FIELDS[self.kind]:
            right = ", or ".join(" and ".join(sorted(names)) for names in FIELDS[self.kind])
            raise ValueError(
                f"fields: the kind {self.kind} has the fields {right}, not {', '.join(self.fields)}"
            )
        return self
