"""The colour pictures of OpenMoji, drawn out of SVG on white; the group of an emoji is its class.

resvg reads no font and no other file for them. Skin tones of one emoji, and the man, the woman and the person of
one kind, are one subject, so they are on one side.
"""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from genpipe.errors import BadInput, BadState
from genpipe.params.corpora import Emoji
from genpipe.progress import shown
from genpipe.sources.examples import Examples, write_examples
from genpipe.sources.jsonl import read_jsonl
from genpipe.sources.prepared import Prepared

KEYS = ("base", "group", "hexcode", "svg")
# Men, women and people of one kind are drawn alike but for their hair: code points that make one subject of them.
PEOPLE = {
    **dict.fromkeys(("1F468", "1F469"), "1F9D1"),  # man, woman: person
    **dict.fromkeys(("1F466", "1F467"), "1F9D2"),  # boy, girl: child
    **dict.fromkeys(("1F474", "1F475"), "1F9D3"),  # old man, old woman: old person
}
SIGNS = ("200D", "2640", "2642", "FE0F")  # joiner, woman's sign, man's sign, variation selector


def prepare_emoji(source: Path, directory: Path, dataset: Emoji) -> Prepared:
    """Write images [n, 3, size, size] and the groups as labels."""
    found, _ = read_emoji(source, dataset)
    return write_examples(source, directory, found, dataset.test_share, Counter(), [drawn_by(dataset)])


def read_emoji(source: Path, dataset: Emoji) -> tuple[Examples, list[dict[str, Any]]]:
    """The drawings of all records with their groups and subjects, and the records."""
    if resvg_py.__version__ != dataset.resvg:
        raise BadState(
            f"emoji: resvg-py is {resvg_py.__version__}, and the block says resvg: {dataset.resvg!r}, since another version "
            "may draw other pixels; install requirements.lock, or change the block"
        )
    path = source / "openmoji.jsonl" if source.is_dir() else source
    records = [_checked(path, number, record) for number, record in read_jsonl(path)]
    if not records:
        raise BadInput(f"{path}: no emoji in it; write it again with `genpipe data --force emoji`")
    images = np.stack([_draw(path, record, dataset.image_size) for record in shown(records, "draw", "emoji")])
    labels = [record["group"] for record in records]
    return Examples(images, labels, None, [subject(record["base"]) for record in records]), records


def drawn_by(dataset: Emoji) -> str:
    """The note that says what drew."""
    return f"drawn by resvg-py {dataset.resvg} with resvg {resvg_py.__resvg_version__}"


def subject(base: str) -> str:
    """What an emoji shows whatever the person: its code points without skin tones, with one for man, woman and person."""
    return "-".join(PEOPLE.get(code, code) for code in base.split("-") if code not in SIGNS)


def _checked(path: Path, number: int, record: dict[str, Any]) -> dict[str, str]:
    for key in KEYS:
        if not isinstance(record.get(key), str):
            raise BadInput(f"{path}: line {number}: {key!r} must be a text; fix the line")
    return record


def _draw(path: Path, record: dict[str, str], size: int) -> NDArray[np.uint8]:
    """An emoji on white, uint8 [3, size, size]."""
    try:
        png = resvg_py.svg_to_bytes(
            svg_string=record["svg"], width=size, height=size, background="#ffffff", skip_system_fonts=True
        )
    except ValueError as error:
        raise BadInput(f"{path}: {record['hexcode']}: not a drawing that can be read: {error}") from None
    with Image.open(io.BytesIO(png)) as image:
        square = np.asarray(image.convert("RGB").resize((size, size)))
    return np.moveaxis(square, -1, 0)
