"""Blocks of texts beside features of what they are about."""

from typing import Annotated

from pydantic import Field

from genpipe.params.blocks import Block, Name


class Features(Block):
    """Each text of an encoding, beside the features that a trained model finds in the image of the same row."""

    encoding: Name = Field(description="of the texts, of the kind stream with the field text")
    dataset: Name = Field(description="that has the images of the same rows, as emoji_names")
    model: Annotated[str, Field(pattern=r"^models/[^/]+$")] = Field(
        description="the trained recipe whose features, or codes, they are"
    )
