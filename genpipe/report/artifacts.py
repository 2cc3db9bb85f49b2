"""What the report reads of artifacts/; what a stage has not made yet is None."""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from genpipe.errors import BadState
from genpipe.files import read_json

Table = list[dict[str, str]]
KEYS = {"file", "show", "title", "caption"}


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page."""

    name: str
    width: int
    height: int
    uri: str


@dataclass(frozen=True)
class Panel:
    """A row of panels.json with what its file has: a Picture, a Table, lines of text, or columns of numbers."""

    show: str
    title: str
    caption: str
    content: Any


def read_record(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is no such file."""
    if not path.exists():
        return None
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadState(f"{path}: must be a JSON object, not {type(value).__name__}; {_again(path)}")
    return value


def read_numbers(path: Path) -> dict[str, float] | None:
    """A JSON object of numbers, or None where there is no such file."""
    values = read_record(path)
    for name, value in (values or {}).items():
        if not isinstance(value, int | float):
            raise BadState(f"{path}: {name}: must be a number, not {value!r}; {_again(path)}")
    return values


def read_table(path: Path, *wanted: str) -> Table | None:
    """The rows of tab-separated text whose header has at least `wanted`, or None where there is no such file."""
    if not path.exists():
        return None
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise BadState(f"{path}: not valid UTF-8, {error}; {_again(path)}") from None
    header, *rows = (line.split("\t") for line in lines)
    if missing := [name for name in wanted if name not in header]:
        raise BadState(f"{path}: no column {', '.join(missing)}; it has: {', '.join(header)}; {_again(path)}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise BadState(
                f"{path}: line {number}: must have {len(header)} columns, has {len(row)}; {_again(path)}"
            )
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_columns(path: Path, *wanted: str) -> dict[str, list[float]] | None:
    """The columns of a table of numbers (at least those `wanted`), or None where there is no such file."""
    table = read_table(path, *wanted)
    if table is None:
        return None
    names = list(table[0]) if table else list(wanted)
    try:
        return {name: [float(row[name]) for row in table] for name in names}
    except ValueError as error:
        raise BadState(f"{path}: must hold numbers: {error}; {_again(path)}") from None


def read_text(path: Path) -> str | None:
    """A text file, or None where there is no such file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def read_panels(directory: Path) -> list[Panel] | None:
    """What panels.json of a directory lists, or None where there is no such file."""
    path = directory / "panels.json"
    if not path.exists():
        return None
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) >= KEYS for row in rows):
        raise BadState(f"{path}: not a list of panels with {', '.join(sorted(KEYS))}; {_again(path)}")
    return [_panel(directory, row) for row in rows]


def _panel(directory: Path, row: dict[str, str]) -> Panel:
    path = directory / Path(row["file"]).name
    if row["show"] not in READERS or not path.exists():
        raise BadState(f"{path}: no such file of the form {row['show']!r}; {_again(path)}")
    return Panel(row["show"], row["title"], row["caption"], READERS[row["show"]](path))


def _picture(path: Path) -> Picture:
    data = path.read_bytes()
    try:
        width, height = Image.open(io.BytesIO(data)).size
    except UnidentifiedImageError:
        raise BadState(f"{path}: not a PNG picture; {_again(path)}") from None
    return Picture(path.stem, width, height, "data:image/png;base64," + base64.b64encode(data).decode())


def _again(path: Path) -> str:
    return f"write {path.name} again by running the stage that makes it: genpipe plan"


READERS: Mapping[str, Callable[[Path], Any]] = {
    "picture": _picture,
    "animation": _picture,
    "table": read_table,
    "text": lambda path: (read_text(path) or "").splitlines(),
    "plot": read_columns,
}
