"""Blocks of raw data and of text."""

from typing import Literal

from pydantic import Field

from genpipe.params.blocks import Block, Name, RelativePath


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
    tokenizer: Literal["jieba", "character", "word"] = "jieba"
    shard_bytes: int = Field(1 << 20, ge=1)
    min_count: int = Field(1, ge=1, description="rarer tokens are <unk>")
    max_size: int | None = Field(None, ge=1, description="size limit of the vocabulary, <unk> included")
    encode: tuple[str, ...] = Field(description="files of the data set to encode")
