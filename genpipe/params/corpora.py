"""Blocks of raw data and of text."""

from typing import Literal, Self

from pydantic import Field, model_validator

from genpipe.params.blocks import Block, Name, RelativePath
from genpipe.params.tokenizers import FILE_TOKENIZERS, NormalisationStep, TokenizerName


class Dataset(Block):
    """Raw data made into plain files under artifacts/datasets/NAME."""

    kind: Literal["digits", "image_folder", "text", "poems", "couplets"]
    source: RelativePath
    test_share: float = Field(0.1, gt=0, lt=1, description="image_folder, couplets: share kept for testing")
    image_size: int = Field(28, ge=8, description="image_folder: pixels a side")


class Corpus(Block):
    """Text that is counted, given a vocabulary, and encoded."""

    dataset: Name
    files: tuple[str, ...] = Field(description="files of the data set to count")
    field: str = "text"
    normalise: tuple[NormalisationStep, ...] = Field((), description="steps before the tokenizer, in order")
    tokenizer: TokenizerName = "jieba"
    tokenizer_file: RelativePath | None = Field(
        None, description="bpe, wordpiece, unigram: a Hugging Face file; lexicon: word<TAB>count a line"
    )
    shard_bytes: int = Field(1 << 20, ge=1)
    min_count: int = Field(1, ge=1, description="rarer tokens are <unk>")
    max_size: int | None = Field(None, ge=1, description="size limit of the vocabulary, <unk> included")
    encode: tuple[str, ...] = Field(description="files of the data set to encode")

    @model_validator(mode="after")
    def _file_fits_tokenizer(self) -> Self:
        if (self.tokenizer in FILE_TOKENIZERS) != (self.tokenizer_file is not None):
            wanted = "one" if self.tokenizer_file is None else "none"
            raise ValueError(
                f"tokenizer_file: tokenizer {self.tokenizer} wants {wanted}, not {self.tokenizer_file}"
            )
        return self
