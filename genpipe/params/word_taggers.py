"""The tokenizer that a trained model defines: apart from genpipe/params/tokenizers.py, which is part of every training."""

from typing import Literal

TaggerName = Literal["tagged"]
TAGGED: TaggerName = "tagged"
