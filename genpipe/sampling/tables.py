"""Tables of texts, one row a line."""

from collections.abc import Iterable, Sequence
from pathlib import Path

SHOWN = str.maketrans({"\t": "⇥", "\n": "⏎", "\r": "⏎"})


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Tab-separated text with a header; tabs and line breaks in a text become ⇥ and ⏎."""
    lines = [columns, *([cell.translate(SHOWN) for cell in row] for row in rows)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
