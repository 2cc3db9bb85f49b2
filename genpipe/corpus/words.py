"""Where words begin among the tokens of a text: another tokenizer's words, laid over the characters that are encoded."""

import numpy as np
import polars as pl

from genpipe.errors import BadInput


def word_starts(tokens: pl.DataFrame, words: pl.DataFrame, num_documents: int) -> np.ndarray:
    """Of each token, uint8 [tokens], whether a word begins with it.

    Both frames have the columns document and token; tokens are single characters. White space belongs to no word. A document of
    whose characters the words have more or fewer, as a normalisation may make them, has a word for each character.
    """
    is_letter = ~_is_space(tokens["token"])
    documents = tokens["document"].to_numpy().astype(np.int64)
    of_words = words["document"].to_numpy().astype(np.int64)
    lengths = _num_letters(words["token"])
    num_letters = np.bincount(documents[is_letter], minlength=num_documents)
    fits = num_letters == np.bincount(of_words, lengths, minlength=num_documents)
    places = np.flatnonzero(is_letter & fits[documents])
    lengths = lengths[fits[of_words] & (lengths > 0)]
    starts = np.ones(len(documents), np.uint8)
    starts[places] = 0
    starts[places[np.cumsum(lengths) - lengths]] = 1
    return starts


def require_characters(tokenizer: str, where: str) -> None:
    """Raise BadInput where tokens are not the characters that words are made of."""
    if tokenizer != "char":
        raise BadInput(
            f"{where}: words are found among characters, and its corpus has the tokenizer {tokenizer}; take char"
        )


def _is_space(tokens: pl.Series) -> np.ndarray:
    spaces = [token for token in tokens.unique().to_list() if token.isspace()]
    return tokens.is_in(spaces).to_numpy()


def _num_letters(words: pl.Series) -> np.ndarray:
    """Characters of each word but white space, int64 [words]."""
    return words.str.replace_all(r"\s", "").str.len_chars().to_numpy().astype(np.int64)
