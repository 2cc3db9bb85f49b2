"""Names of tokenizers and of the steps before them: apart from the blocks, so that counting needs no Pydantic."""

from typing import Literal

TokenizerName = Literal[
    "jieba", "jieba_python", "char", "word", "whitespace", "bpe", "wordpiece", "unigram", "lexicon"
]
NormalisationStep = Literal["nfc", "nfkc", "full_width", "lower", "casefold", "simplified"]
FILE_TOKENIZERS = ("bpe", "wordpiece", "unigram", "lexicon")  # those that a file defines
