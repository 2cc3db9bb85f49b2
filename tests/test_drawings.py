"""Glyphs and emoji as data sets: fonts that fontTools makes, drawings of a few lines, drawn by FreeType and resvg."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import features
from pydantic import TypeAdapter

from genpipe.errors import BadInput, BadState
from genpipe.params.corpora import Dataset
from genpipe.params.project import read_params
from genpipe.sources.datasets import prepare
from genpipe.sources.emoji import subject
from genpipe.sources.glyphs import _draw, characters
from genpipe.sources.jsonl import read_jsonl
from tests.processors import EMULATOR, PROCESSORS, REASON

REPOSITORY = Path(__file__).parents[1]
FREETYPE = features.version("freetype2")
TEXT = characters("gb2312_level1")[:60]
needs_data = pytest.mark.skipif(
    not all((REPOSITORY / "data" / name).exists() for name in ("glyphs", "emoji")),
    reason="needs data/, which `genpipe data glyphs emoji` writes",
)


def bars(number: int, slant: int = 0) -> Any:
    """A glyph of one thin bar for each bit of a number that is set."""
    pen = TTGlyphPen(None)
    for bit in range(8):
        if number >> bit & 1:
            left, bottom = 60 + 110 * bit, 100
            corners = (left, bottom), (left + slant, bottom + 700), (left + 60 + slant, bottom + 700), (left + 60, bottom)  # fmt: skip
            pen.moveTo(corners[0])
            for corner in corners[1:]:
                pen.lineTo(corner)
            pen.closePath()
    return pen.glyph()


def make_font(path: Path, glyphs: dict[str, Any]) -> None:
    """A TrueType font with these characters; what it lacks is drawn as eight bars."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [".notdef", *(f"uni{ord(character):04X}" for character in glyphs)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(character): name for character, name in zip(glyphs, names[1:], strict=True)})
    font.setupGlyf(dict(zip(names, [bars(255), *glyphs.values()], strict=True)))
    # FreeType moves a glyph so that it begins at its bearing
    font.setupHorizontalMetrics({name: (1000, font.font["glyf"][name].xMin) for name in names})
    font.setupHorizontalHeader(ascent=880, descent=-120)
    font.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)


def two_fonts(root: Path) -> None:
    for name, slant in (("upright", 0), ("slanted", 150)):
        glyphs = {character: bars(number + 1, slant) for number, character in enumerate(TEXT)}
        make_font(root / "fonts" / f"{name}.ttf", glyphs)


def made(root: Path, **block: Any) -> dict[str, np.ndarray]:
    prepare(root, "drawn", TypeAdapter(Dataset).validate_python(block))
    return {path.stem: np.load(path) for path in (root / "artifacts/datasets/drawn").glob("*.npy")}


def glyphs(root: Path, **block: Any) -> dict[str, np.ndarray]:
    common = {"kind": "glyphs", "source": "fonts", "characters": "gb2312_level1", "freetype": FREETYPE}
    return made(root, **common | block)


def read(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "artifacts/datasets/drawn" / name).read_text(encoding="utf-8"))


# glyphs


def test_the_characters_are_those_of_gb2312() -> None:
    assert (len(characters("gb2312_level1")), len(characters("gb2312"))) == (3755, 6763)
    assert len({*characters("gb2312")}) == 6763
    assert (characters("gb2312")[0], characters("gb2312")[3755], characters("gb2312")[-1]) == (
        "啊",
        "亍",
        "齄",
    )


def test_glyphs_are_drawn_white_on_black_and_the_font_is_the_class(tmp_path: Path) -> None:
    two_fonts(tmp_path)
    arrays = glyphs(tmp_path, test_share=0.3)
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    assert images.shape == (120, 1, 32, 32)
    assert images.dtype == np.uint8
    assert (images.max((1, 2, 3)) > 200).all()
    assert (images[:, :, [0, -1]] == 0).all()
    facts = read(tmp_path, "data.json")["facts"]
    assert sorted(facts["classes"]) == ["slanted", "upright"]
    assert facts["image_shape"] == [1, 32, 32]
    upright = facts["classes"].index("upright")
    for split in ("train", "test"):
        for image, label in zip(arrays[f"{split}_images"][:, 0], arrays[f"{split}_labels"], strict=True):
            lines = image[8:24] > 0
            assert (lines == lines[0]).all() == (label == upright)


def test_a_character_is_on_one_side_in_all_fonts(tmp_path: Path) -> None:
    two_fonts(tmp_path)
    arrays = glyphs(tmp_path, test_share=0.3)
    labels = [arrays[f"{split}_labels"] for split in ("train", "test")]
    assert all((side == 0).sum() == (side == 1).sum() for side in labels)
    one = {path: path.read_bytes() for path in (tmp_path / "artifacts/datasets/drawn").iterdir()}
    (tmp_path / "fonts/slanted.ttf").unlink()
    rows = {row.tobytes() for row in glyphs(tmp_path, test_share=0.3)["test_images"]}
    assert len(one) == 6
    assert not (tmp_path / "artifacts/datasets/drawn/train_labels.npy").exists()  # one font is no class
    assert len(rows) in range(5, 40)


def test_the_same_drawing_in_two_fonts_is_left_out_before_the_split(tmp_path: Path) -> None:
    two_fonts(tmp_path)
    for name, slant in (("upright", 0), ("slanted", 150)):
        drawings = {character: bars(number + 1, slant) for number, character in enumerate(TEXT)}
        drawings[TEXT[0]] = drawings[TEXT[1]] = bars(200)  # once in both fonts, and twice in each
        make_font(tmp_path / "fonts" / f"{name}.ttf", drawings)
    arrays = glyphs(tmp_path)
    assert len(arrays["train_images"]) + len(arrays["test_images"]) == 116
    assert (
        read(tmp_path, "source.json")["left_out"]["images under two or more classes, with their copies"] == 4
    )


def test_characters_that_a_font_lacks_and_other_files_are_counted(tmp_path: Path) -> None:
    two_fonts(tmp_path)
    (tmp_path / "fonts/README").write_text("read")
    arrays = glyphs(tmp_path)
    assert len(arrays["train_images"]) + len(arrays["test_images"]) == 120
    assert read(tmp_path, "source.json")["left_out"] == {
        "characters that slanted.ttf does not have": 3695,
        "characters that upright.ttf does not have": 3695,
        "files that are no fonts": 1,
    }


def test_another_freetype_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    two_fonts(tmp_path)
    with pytest.raises(BadState, match=r"FreeType .*freetype: '2\.0\.0'.*install requirements\.lock"):
        glyphs(tmp_path, freetype="2.0.0")
    assert not (tmp_path / "artifacts/datasets/drawn").exists()


def test_fonts_that_cannot_be_drawn_are_named(tmp_path: Path) -> None:
    (tmp_path / "fonts").mkdir()
    with pytest.raises(BadInput, match=r"fonts: no fonts found; put \.otf, \.ttc, \.ttf files there"):
        glyphs(tmp_path)
    (tmp_path / "fonts/broken.ttf").write_text("no font")
    with pytest.raises(BadInput, match=r"broken\.ttf: not a font that can be read"):
        glyphs(tmp_path)
    make_font(tmp_path / "fonts/broken.ttf", {"A": bars(3)})
    with pytest.raises(BadInput, match=r"broken\.ttf: the font has none of these characters"):
        glyphs(tmp_path)
    shutil.copy(tmp_path / "fonts/broken.ttf", tmp_path / "fonts/broken.otf")
    with pytest.raises(BadInput, match=r"several fonts have the name broken; rename one"):
        glyphs(tmp_path)


# emoji

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">{}</svg>'
ROUND = '<circle cx="{x}" cy="{y}" r="{r}" fill="{fill}"/>'
BAR = '<rect x="{x}" y="{y}" width="{r}" height="30" fill="{fill}"/>'
MARK = '<rect x="60" y="60" width="12" height="12" fill="#{:02x}00ff"/>'  # which subject it is


def write_emoji(root: Path, records: list[dict[str, str]]) -> None:
    (root / "drawings").mkdir(exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (root / "drawings/openmoji.jsonl").write_text(lines)


def emoji(root: Path, **block: Any) -> dict[str, np.ndarray]:
    return made(root, **{"kind": "emoji", "source": "drawings", "resvg": "0.5.0", **block})


def some_emoji() -> list[dict[str, str]]:
    """Thirty subjects of two groups, each in two tones that are drawn at other places; a corner says which subject it is."""
    records: list[dict[str, str]] = []
    for number in range(30):
        group, shape = (("round", ROUND), ("bars", BAR))[number % 2]
        for tone, fill, x in (("", "#d00", 6), ("-1F3FB", "#0af", 36)):
            drawn = shape.format(x=x + number % 5, y=4 + number, r=6 + number % 7, fill=fill)
            svg = SVG.format(drawn + MARK.format(8 * number))
            records.append({"hexcode": f"{number}{tone}", "base": str(number), "group": group, "svg": svg})
    return records


def test_emoji_are_drawn_in_colour_on_white_with_their_groups(tmp_path: Path) -> None:
    write_emoji(tmp_path, some_emoji())
    arrays = emoji(tmp_path)
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    assert images.shape == (60, 3, 32, 32)
    assert (images[:, :, 0, -1] == 255).all()
    inks = {tuple(pixel) for image in images for pixel in image.reshape(3, -1).T.tolist()}
    assert {(221, 0, 0), (0, 170, 255)} <= inks
    assert sorted(read(tmp_path, "data.json")["facts"]["classes"]) == ["bars", "round"]


def test_all_tones_of_an_emoji_are_on_one_side(tmp_path: Path) -> None:
    write_emoji(tmp_path, some_emoji())
    arrays = emoji(tmp_path, test_share=0.3)
    sides = [arrays[f"{split}_images"][:, 0, -1, -1].tolist() for split in ("train", "test")]
    assert all(len(side) == 2 * len({*side}) > 6 for side in sides)
    assert {*sides[0]}.isdisjoint(sides[1])


def test_a_man_a_woman_and_a_person_of_one_kind_are_one_subject() -> None:
    runner, detective = "1F3C3", "1F575-FE0F"
    assert {subject(code) for code in (runner, f"{runner}-200D-2640-FE0F", f"{runner}-200D-2642-FE0F")} == {
        runner
    }
    assert subject(f"{detective}-200D-2640-FE0F") == subject(detective) == "1F575"
    cooks = (f"{person}-200D-1F373" for person in ("1F468", "1F469", "1F9D1"))
    assert {subject(code) for code in cooks} == {"1F9D1-1F373"}
    assert subject("1F436") != subject("1F431")


def test_bad_emoji_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    write_emoji(tmp_path, [{"hexcode": "1", "base": "1", "group": "a", "svg": "<svg"}])
    with pytest.raises(BadInput, match=r"openmoji\.jsonl: 1: not a drawing that can be read"):
        emoji(tmp_path)
    write_emoji(tmp_path, [{"hexcode": "1", "group": "a", "svg": "<svg/>"}])
    with pytest.raises(BadInput, match=r"line 1: 'base' must be a text"):
        emoji(tmp_path)
    with pytest.raises(BadState, match=r"resvg: '0\.4\.0'.*install requirements\.lock"):
        emoji(tmp_path, resvg="0.4.0")
    assert not (tmp_path / "artifacts/datasets/drawn").exists()


# the data sets of params.yaml


def test_the_rasterisers_of_params_are_those_that_are_locked() -> None:
    datasets = read_params(REPOSITORY).datasets
    assert datasets["glyphs"].freetype == FREETYPE  # pyright: ignore[reportAttributeAccessIssue]
    lock = (REPOSITORY / "requirements.lock").read_text().splitlines()
    assert f"resvg_py=={datasets['emoji'].resvg}" in lock  # pyright: ignore[reportAttributeAccessIssue]


DRAW = """\
import hashlib, sys
from collections import Counter
from pathlib import Path
from genpipe.sources import emoji, glyphs
from genpipe.sources.jsonl import read_jsonl
data, text = Path(sys.argv[1]) / "data", glyphs.characters("gb2312")[::40]
drawn = [glyphs._draw(path, text, 32, Counter()).images for path in sorted((data / "glyphs").iterdir())]
path = data / "emoji/openmoji.jsonl"
drawn.append([emoji._draw(path, record, 32) for number, record in read_jsonl(path) if number % 40 == 0])
print(*(hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()[:16] for images in drawn))
"""
DRAWN = "e952b06f05c4edbb 627a4554b830ad3e f4069de82ea02fc5"  # ukai, wqy-microhei, openmoji


def draw(*before: str) -> str:
    words = [*before, sys.executable, "-c", DRAW, str(REPOSITORY)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return done.stdout.strip()


@needs_data
def test_fonts_and_drawings_of_the_packages_give_the_pixels_that_they_always_gave() -> None:
    assert draw() == DRAWN


@needs_data
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(EMULATOR), reason=REASON)
@pytest.mark.parametrize("processor", [*PROCESSORS.values()])
def test_other_processors_draw_the_same_pixels(processor: str) -> None:
    assert draw(EMULATOR, "-cpu", processor) == DRAWN


@needs_data
def test_the_pinned_fonts_have_all_characters_and_the_pinned_emoji_all_groups() -> None:
    text, missing = characters("gb2312"), Counter[str]()
    fonts = sorted((REPOSITORY / "data/glyphs").iterdir())
    assert [len(_draw(path, text[::10], 32, missing).images) for path in fonts] == [677, 677]
    assert not missing
    records = [record for _, record in read_jsonl(REPOSITORY / "data/emoji/openmoji.jsonl")]
    assert (len(records), len({record["group"] for record in records})) == (4495, 12)
    assert len({subject(record["base"]) for record in records}) == 2261
