"""Lexicon files: word<TAB>count a line."""

from pathlib import Path

from genpipe.corpus.lexicon import read_lexicon
from genpipe.errors import BadInput


def read_counts(lexicon: Path) -> dict[str, int]:
    """Words and their counts in a lexicon file."""
    text = _read(lexicon)
    read_lexicon(text, lexicon)  # it complains
    lines = (line.partition("\t") for line in text.removesuffix("\n").split("\n"))
    return {word: int(count) for word, _, count in lines}


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(f"{file}: no such file; name a lexicon, word<TAB>count a line") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not valid UTF-8 at byte {error.start}; convert the file first") from None
