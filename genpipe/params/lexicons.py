"""Blocks of words that are found without labels."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genpipe.params.blocks import Block, Name, RelativePath
from genpipe.params.corpora import NO_FILE
from genpipe.params.tokenizers import NormalisationStep

Nats = Annotated[float, Field(ge=0, lt=1e6)]


class Lexicon(Block):
    """The words of a data set of text, found without labels; see docs/discovery.md for what the options mean."""

    dataset: Name
    files: tuple[str, ...] = Field(description="files of the data set to read")
    field: str = "text"
    normalise: tuple[NormalisationStep, ...] = Field((), description="steps before anything else, in order")
    method: Literal["combined", "solidity", "entropy"] = "combined"
    units: Literal["runs", "characters"] = Field(
        "runs", description="characters: letters are units too, for Latin text without spaces"
    )
    order: int = Field(4, ge=2, le=6, description="longest n-gram that is counted")
    min_count: int = Field(5, ge=1, description="rarer words are left out, at the end")
    thresholds: tuple[Nats, ...] = Field(
        (), description="nats, for n-grams of 2, 3, … units; those of the method where there are none"
    )
    strict: bool = Field(
        False, description="all parts of three units and more of a word must be solid; not of entropy"
    )
    freedom: Nats = Field(0.75, description="nats for each unit of a word with free ends; of combined")
    min_proba: Annotated[float, Field(ge=0, lt=1)] = Field(
        1e-5, description="share of all pairs, and of all words; of entropy"
    )
    min_pmi: Nats = Field(1.0, description="nats of a pair; of entropy")
    examples: int = Field(3, ge=0, description="places of a frequent word in context")
    shard_bytes: int = Field(8 << 20, ge=1)
    known: RelativePath = Field(
        NO_FILE, description=f"a file with a word a line, for precision and recall; else {NO_FILE}"
    )
    beside: Annotated[str, Field(pattern=r"^(none|lexicons/[^/]+)$")] = Field(
        "none",
        description="the words of another text, lexicons/NAME, to find those that are typical of this one",
    )

    @model_validator(mode="after")
    def _options_are_of_the_method(self) -> Self:
        others = {
            "entropy": ("order", "thresholds", "strict", "freedom"),
            "solidity": ("freedom", "min_proba", "min_pmi"),
            "combined": ("min_proba", "min_pmi"),
        }
        for name in others[self.method]:
            if name in self.model_fields_set:
                raise ValueError(f"{name}: not an option of the method {self.method}; leave it out")
        return self

    @property
    def known_file(self) -> str | None:
        """The file of known words, below the project, if any."""
        return None if self.known == NO_FILE else self.known

    @property
    def other(self) -> str | None:
        """The name of the lexicon of another text, if any."""
        return None if self.beside == "none" else self.beside.removeprefix("lexicons/")
