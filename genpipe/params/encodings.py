"""Blocks of text as token ids."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from genpipe.files import CODEC, TABLES, TOKENIZERS
from genpipe.params.blocks import Block, Name, RelativePath
from genpipe.params.tokenizers import NormalisationStep

FIELDS: dict[str, tuple[frozenset[str], ...]] = {  # what a kind is made of, or may be made of
    "stream": (frozenset({"text"}),),
    "pairs": (frozenset({"source", "target"}),),
    "passages": (frozenset({"question", "passages", "answer"}),),
    "groups": (frozenset({"text", "group"}),),
    "tagged": (frozenset({"text", "tags"}), frozenset({"text", "label"})),
}
CARRIED = tuple(pattern for pattern in TABLES if pattern != "*.npy")
OWN = ("data.json", "classes.json", *CODEC, *TOKENIZERS)  # what encode writes itself, beside *.npy


class Words(Block):
    """A tokenizer whose words are marked among the characters of a stream."""

    tokenizer: Literal["jieba", "jieba_python", "whitespace"]
    normalise: tuple[NormalisationStep, ...] = ()


# as keyword arguments and keys of a batch are called; those that a batch has already mean something else
Condition = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
TAKEN = frozenset(
    {
        "ids",
        "lengths",
        "labels",
        "label",
        "tags",
        "text",
        "source",
        "target",
        "progress",
        "rows",
        "images",
        "points",
    }
)


class Encoding(Block):
    """A data set of text as token ids, by the tokenizer and the vocabulary of a corpus."""

    dataset: Name
    corpus: Name
    kind: Literal["stream", "pairs", "passages", "groups", "tagged"]
    fields: dict[str, str] = Field(description="part of an example -> field of the data set's records")
    conditions: dict[Condition, str] = Field(
        default_factory=dict,
        description="tagged: name of a condition -> field of the records with its class",
    )
    carry: tuple[RelativePath, ...] = Field(
        (), description="files of the data set that are copied as they are"
    )
    words: Words | None = Field(
        None, description="of a stream of characters: where words begin, for masks of whole words"
    )

    @field_validator("carry")
    @classmethod
    def _nothing_is_written_twice(cls, carry: tuple[str, ...]) -> tuple[str, ...]:
        names = [Path(file).name for file in carry]
        for number, (file, name) in enumerate(zip(carry, names, strict=True)):
            if not any(fnmatchcase(name, pattern) for pattern in CARRIED):
                raise ValueError(f"a carried file is one of {', '.join(CARRIED)}, not {file!r}")
            if name in OWN or name in names[:number]:
                raise ValueError(f"{name} is written by something else too, so {file!r} cannot be carried")
        return carry

    @model_validator(mode="after")
    def _words_are_those_of_a_stream(self) -> Self:
        if self.words and self.kind != "stream":
            raise ValueError(f"words: of a stream only, not of the kind {self.kind}")
        return self

    @model_validator(mode="after")
    def _conditions_fit_the_kind(self) -> Self:
        for name in self.conditions:
            if name in TAKEN:
                raise ValueError(
                    f"conditions: {name!r} is the name of something else in a batch; take another name"
                )
        if self.conditions and (self.kind != "tagged" or len(self.fields) > 1):
            raise ValueError("conditions: of use in the kind tagged, beside the field text alone")
        return self

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if set(self.fields) not in (FIELDS[self.kind] if not self.conditions else (frozenset({"text"}),)):
            right = ", or ".join(" and ".join(sorted(names)) for names in FIELDS[self.kind])
            raise ValueError(
                f"fields: the kind {self.kind} has the fields {right}, not {', '.join(self.fields)}"
            )
        return self
