"""The data layer: archives of the real layout, only tiny; real pip, tar, zip and dvc."""

import functools
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from genpipe.errors import BadInput, BadState, Unavailable
from genpipe.files import sha256
from genpipe.params.corpora import Dataset
from genpipe.sources.archives import Archive
from genpipe.sources.couplets import is_regulated, poem_couplets
from genpipe.sources.datasets import prepare
from genpipe.sources.fetch import Part, fetch_data
from genpipe.sources.idx import read_idx, write_idx
from genpipe.sources.packages import unpack_digits, unpack_poems
from genpipe.sources.pin import directory_md5
from genpipe.sources.poems import Poem
from genpipe.sources.verse import verse_of

SPRING = {  # 杜甫, 春望
    "id": "spring",
    "title": "春望",
    "author": "杜甫",
    "paragraphs": [
        "國破山河在，城春草木深。",
        "感時花濺淚，恨別鳥驚心。",
        "烽火連三月，家書抵萬金。",
        "白頭搔更短，渾欲不勝簪。",
    ],
}
SPRING_TONES = [
    "仄仄平平仄，平平仄仄平。",
    "仄平平仄仄，仄仄仄平平。",
    "平仄平○仄，平平仄仄平。",
    "仄平平○仄，平仄仄○平。",
]
PINNED_DIGITS = Path(__file__).parents[1] / "data/digits"
WHEEL = "digits-0.0.1-py3-none-any.whl"


def make_wheel(directory: Path) -> Path:
    """A wheel that pip takes, with ten digits."""
    image = io.BytesIO()
    Image.fromarray(digit_pixels().reshape(10, 784)).save(image, "PNG")
    information = "digits-0.0.1.dist-info/"
    path = directory / WHEEL
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tfjs_mnist/static/mnist_images.png", image.getvalue())
        wheel.writestr("tfjs_mnist/static/mnist_labels_uint8", np.eye(10, dtype=np.uint8).tobytes())
        wheel.writestr(information + "METADATA", "Metadata-Version: 2.1\nName: digits\nVersion: 0.0.1\n")
        wheel.writestr(
            information + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(information + "RECORD", "")
    return path


def digit_pixels() -> np.ndarray:
    return (np.arange(10 * 28 * 28) % 251).astype(np.uint8).reshape(10, 28, 28)


def make_digits_tarball(directory: Path) -> Path:
    """Ten digits as npm's mnist has them: one of each class that the wheel lacks but for 3, which is in both."""
    path = directory / "mnist.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for label in range(10):
            pixels = digit_pixels()[3] if label == 3 else 255 - digit_pixels()[label]
            values = np.round(pixels.flatten() / 255, 3).tolist()
            content = json.dumps({"data": values}).encode()
            member = tarfile.TarInfo(f"package/src/digits/{label}.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_tarball(directory: Path) -> Path:
    """chinese-poetry in small: poem files 0, 10 and 9, strains, and one file to be passed over."""
    members = {
        "quantangshi/poet.tang.0.json": [SPRING],
        "quantangshi/poet.tang.10000.json": [SPRING | {"id": "last", "title": "ＡÅ"}],
        "quantangshi/poet.tang.9000.json": [SPRING | {"id": "middle", "paragraphs": ["白日依山盡"]}],
        "quantangshi/error/poet.tang.0.json": [SPRING | {"id": "error"}],
        "strains/json/poet.tang.0.json": [{"id": "spring", "strains": SPRING_TONES}],
        "strains/json/poet.tang.9000.json": [{"id": "middle", "strains": ["仄", "平"]}],
        "songci/ci.song.0.json": [{"author": "和岘", "paragraphs": ["缇管一阳生。"], "rhythmic": "导引"}],
        "nalanxingde/纳兰性德诗集.json": [
            {"title": "长相思", "author": "纳兰性德", "para": ["山一程，水一程"]}
        ],
    }
    path = directory / "poetry.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, records in members.items():
            content = json.dumps(records, ensure_ascii=False).encode()
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    (tmp_path / "registry").mkdir()
    return make_wheel(tmp_path / "registry")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def digits_part(wheel: Path, client: str = "pip") -> Part:
    archive = Archive(str(wheel), wheel.name, sha256(wheel), client)  # pyright: ignore[reportArgumentType]
    tarball = make_digits_tarball(wheel.parent)
    return Part(
        "digits", (archive,), lambda path, directory: unpack_digits(path, tarball, directory, num_train=8)
    )


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


# archives


def test_a_given_archive_is_known_by_its_hash(
    root: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = wheel.rename(wheel.with_name("any-name"))
    part = digits_part(renamed)
    monkeypatch.setenv("PATH", "")  # nothing is fetched
    fetch_data(root, [renamed], force=False, parts=(part,))
    assert read_idx(root / "data/digits/train-images-idx3-ubyte", 3).shape == (17, 28, 28)


def test_a_given_archive_that_is_none_of_them_is_named_with_both_hashes(root: Path, wheel: Path) -> None:
    other = wheel.with_name("other.tgz")
    other.write_bytes(b"other")
    with pytest.raises(BadInput) as error:
        fetch_data(root, [other], force=False, parts=(digits_part(wheel),))
    assert sha256(wheel) in str(error.value)
    assert hashlib.sha256(b"other").hexdigest() in str(error.value)
    assert not (root / "data").exists()


def test_a_given_archive_that_is_missing_is_named(root: Path, wheel: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.tgz: no such archive"):
        fetch_data(root, [root / "nowhere.tgz"], force=False, parts=(digits_part(wheel),))


def test_without_npm_the_error_tells_the_remedy(
    root: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadState, match=r"install Node\.js with npm, or give the archive with --archive"):
        fetch_data(root, [], force=False, parts=(digits_part(wheel, "npm"),))
    assert not (root / "data").exists()


def test_a_damaged_archive_in_the_cache_is_fetched_again(
    root: Path, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = Path(os.environ["XDG_CACHE_HOME"]) / "genpipe/archives" / WHEEL
    cached.parent.mkdir(parents=True)
    cached.write_bytes(wheel.read_bytes()[:-1])
    fetch_data(root, [], force=False, parts=(digits_part(wheel),))
    assert "deleted it, fetching it again" in capsys.readouterr().err
    assert cached.read_bytes() == wheel.read_bytes()
    assert left_in(cached.parent) == [WHEEL]


def test_other_bytes_from_the_registry_never_reach_the_cache(root: Path, wheel: Path) -> None:
    part = digits_part(wheel)
    with zipfile.ZipFile(wheel, "a") as changed:
        changed.writestr("more", "")
    with pytest.raises(Unavailable, match=part.archives[0].sha256):
        fetch_data(root, [], force=False, parts=(part,))
    assert left_in(Path(os.environ["XDG_CACHE_HOME"])) == []
    assert not (root / "data").exists()


def test_pips_own_error_is_told_in_one_line(root: Path, wheel: Path) -> None:
    part = digits_part(wheel.rename(wheel.with_name("digits.whl")))
    with pytest.raises(
        Unavailable, match=r"pip could not fetch it: ERROR: .* not a valid wheel filename.*--archive FILE$"
    ):
        fetch_data(root, [], force=False, parts=(part,))


# data/


def test_what_is_written_is_whole_or_not_there(root: Path, wheel: Path) -> None:
    part = digits_part(wheel)

    def breaks(archive: Path, directory: Path) -> None:
        part.unpack(archive, directory)
        raise BadInput("broken")

    fetch_data(root, [wheel], force=False, parts=(part,))
    before = left_in(root / "data")
    with pytest.raises(BadInput, match="broken"):
        fetch_data(root, [wheel], force=True, parts=(Part("digits", part.archives, breaks),))
    assert left_in(root / "data") == before
    (root / "data/.digits.1.partial").mkdir()  # of a run that was killed
    fetch_data(root, [wheel], force=False, parts=(part,))
    assert [path.name for path in (root / "data").iterdir()] == ["digits"]


def test_digits_come_from_two_archives_without_copies(root: Path, wheel: Path) -> None:
    files = (wheel, make_digits_tarball(wheel.parent))
    archives = tuple(Archive(path.name, path.name, sha256(path), "npm") for path in files)
    part = Part("digits", archives, functools.partial(unpack_digits, num_train=8))
    fetch_data(root, [*reversed(files)], force=False, parts=(part,))
    data = root / "data/digits"
    assert (data / "test-images-idx3-ubyte").read_bytes()[:16] == bytes.fromhex(
        "00000803 00000002 0000001c 0000001c"
    )
    np.testing.assert_array_equal(read_idx(data / "test-images-idx3-ubyte", 3), digit_pixels()[8:])
    only_there = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    expected = np.concatenate([255 - digit_pixels()[only_there], digit_pixels()[:8]])
    np.testing.assert_array_equal(read_idx(data / "train-images-idx3-ubyte", 3), expected)
    assert read_idx(data / "train-labels-idx1-ubyte", 1).tolist() == [*only_there, *range(8)]


def test_pixels_that_are_no_bytes_are_refused(tmp_path: Path, wheel: Path) -> None:
    path = tmp_path / "mnist.tgz"
    with tarfile.open(path, "w:gz") as tar:
        content = json.dumps({"data": [0.5] * 784}).encode()
        member = tarfile.TarInfo("package/src/digits/0.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    with pytest.raises(BadInput, match=r"digits/0\.json holds pixels other than i/255"):
        unpack_digits(wheel, path, tmp_path)


@pytest.mark.skipif(not PINNED_DIGITS.exists(), reason="needs data/, which `genpipe data` writes")
def test_the_pinned_digits_are_the_60000_of_mnist() -> None:
    images, labels = (
        read_idx(PINNED_DIGITS / "train-images-idx3-ubyte", 3),
        read_idx(PINNED_DIGITS / "train-labels-idx1-ubyte", 1),
    )
    assert len(images) == len(labels) == len({image.tobytes() for image in images}) == 60_000
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels).tolist() == published
    assert labels[5000:5010].tolist() == [7, 3, 4, 6, 1, 8, 1, 0, 9, 8]
    test = read_idx(PINNED_DIGITS / "test-images-idx3-ubyte", 3)
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in test}


def test_poems_are_sorted_by_file_number_and_joined_with_their_tones(tmp_path: Path) -> None:
    unpack_poems(make_tarball(tmp_path), tmp_path)
    poems = [json.loads(line) for line in (tmp_path / "tang.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [poem["id"] for poem in poems] == ["spring", "middle", "last"]
    assert poems[0]["tones"] == SPRING_TONES
    assert "tones" not in poems[1]  # the source has another number of them than of paragraphs
    assert poems[2]["title"] == "ＡÅ"
    assert json.loads((tmp_path / "ci.jsonl").read_text(encoding="utf-8"))["title"] == "导引"
    assert json.loads((tmp_path / "nalan.jsonl").read_text(encoding="utf-8"))["paragraphs"] == [
        "山一程，水一程"
    ]


def test_the_pin_is_dvcs_own_and_a_changed_byte_is_found(root: Path, wheel: Path) -> None:
    def dvc(*command: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "dvc", *command], cwd=root, capture_output=True, text=True, check=True
        ).stdout

    part = digits_part(wheel)
    fetch_data(root, [wheel], force=False, parts=(part,))
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = True\n    analytics = False\n")
    dvc("add", "--quiet", "data/digits")
    pin = (root / "data/digits.dvc").read_text()
    files = {
        path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in (root / "data/digits").iterdir()
    }
    assert directory_md5(files) in pin

    subprocess.run(["rm", "-r", root / "data/digits", root / ".dvc/cache"], check=True)  # as in a fresh clone
    fetch_data(root, [wheel], force=False, parts=(part,))
    assert (root / "data/digits.dvc").read_text() == pin
    assert "up to date" in dvc("status", "data/digits.dvc")

    labels = root / "data/digits/test-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1] + b"\x07")
    with pytest.raises(
        BadState, match=r"^data/digits/test-labels-idx1-ubyte differs .*`genpipe data --force`$"
    ):
        fetch_data(root, [wheel], force=False, parts=(part,))
    fetch_data(root, [wheel], force=True, parts=(part,))
    assert labels.read_bytes() == content


def test_your_own_files_in_data_are_left_alone(
    root: Path, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = digits_part(wheel)
    fetch_data(root, [wheel], force=False, parts=(part,))
    (root / "data/mine").mkdir()
    (root / "data/mine/note").write_text("mine")
    fetch_data(root, [wheel], force=True, parts=(part,))
    assert (root / "data/mine/note").read_text() == "mine"
    assert capsys.readouterr().out.splitlines()[-1] == (
        "data/digits: complete; there is no data/digits.dvc, so it was not verified"
    )


# data sets


def test_idx_files_come_back_and_damaged_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "images"
    write_idx(path, digit_pixels())
    np.testing.assert_array_equal(read_idx(path, 3), digit_pixels())
    with pytest.raises(BadInput, match=r"begins with .* not with 00000801"):
        read_idx(path, 1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"must have 7,840 bytes .* has 7,839"):
        read_idx(path, 3)


def test_the_middle_couplets_of_a_regulated_poem_are_taken() -> None:
    poem = Poem("spring", "", "", SPRING["paragraphs"], SPRING_TONES)
    couplets = list(poem_couplets(poem))
    assert [couplet.text for couplet in couplets] == ["感時花濺淚\n恨別鳥驚心", "烽火連三月\n家書抵萬金"]
    assert couplets[1].tones == "平仄平○仄\n平平仄仄平"
    assert all(is_regulated(couplet) for couplet in couplets)


@pytest.mark.parametrize(
    "tones",
    [
        "仄平平仄仄\n仄平仄仄平",  # second positions alike
        "仄平平仄平\n仄仄仄平平",  # the upper line ends level
        "仄平平仄仄\n仄仄仄平仄",  # the lower line ends oblique
    ],
)
def test_a_couplet_against_the_rules_is_refused(tones: str) -> None:
    couplet = next(poem_couplets(Poem("spring", "", "", SPRING["paragraphs"], SPRING_TONES)))
    assert not is_regulated(couplet._replace(tones=tones))


@pytest.mark.parametrize(
    "second", ["感時花濺□，恨別鳥驚心。", "感時花濺淚，恨別鳥驚。", "感時花濺淚恨別鳥驚心。", "感時，恨別。"]
)
def test_a_poem_of_another_form_gives_no_couplets(second: str) -> None:
    paragraphs = [SPRING["paragraphs"][0], second, *SPRING["paragraphs"][2:]]
    assert list(poem_couplets(Poem("spring", "", "", paragraphs, SPRING_TONES))) == []


def made(root: Path, name: str, **block: object) -> dict[str, bytes]:
    """The files of a data set and their bytes."""
    prepare(root, name, TypeAdapter(Dataset).validate_python(block))
    directory = root / "artifacts/datasets" / name
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*")}


def write_poems(path: Path, num_poems: int) -> None:
    """Poems with distinct lines, each of them twice under two ids."""
    lines = []
    for number in range(num_poems):
        line = "".join(chr(0x4E00 + number // 2 * 8 + place) for place in range(4))
        paragraphs = [f"{line}{a}，{line}{b}。" for a, b in ("山河", "春秋", "風雨", "草木")]
        poem = SPRING | {"id": f"poem-{number}", "paragraphs": paragraphs}
        lines.append(json.dumps(poem | {"tones": SPRING_TONES}, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def test_no_poem_and_no_line_is_in_train_and_test(root: Path) -> None:
    write_poems(root / "poems.jsonl", 200)
    files = made(root, "couplets", kind="couplets", source="poems.jsonl", test_share=0.3)
    sides = [
        [json.loads(line) for line in files[name].splitlines()] for name in ("train.jsonl", "test.jsonl")
    ]
    for part in (
        lambda record: {record["id"].rsplit("-", 1)[0]},
        lambda record: set(record["text"].split("\n")),
    ):
        train, test = ({piece for record in side for piece in part(record)} for side in sides)
        assert train
        assert test
        assert not train & test
    assert len(sides[0]) + len(sides[1]) == 200  # 100 poems are copies
    assert made(root, "couplets", kind="couplets", source="poems.jsonl", test_share=0.3) == files


def test_poems_that_share_any_line_are_on_one_side(root: Path) -> None:
    write_poems(root / "poems.jsonl", 400)
    poems = [json.loads(line) for line in (root / "poems.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [poem["paragraphs"][3] for poem in poems]
    for number, poem in enumerate(poems):  # a chain of ten poems, by last lines that are no couplet of either
        poem["paragraphs"][3] = last[number // 20 * 20]
    text = "".join(json.dumps(poem, ensure_ascii=False) + "\n" for poem in poems)
    (root / "poems.jsonl").write_text(text, encoding="utf-8")
    files = made(root, "couplets", kind="couplets", source="poems.jsonl", test_share=0.4)
    sides = [
        {int(json.loads(line)["id"].split("-")[1]) // 20 for line in files[name].splitlines()}
        for name in ("train.jsonl", "test.jsonl")
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    source = json.loads(files["source.json"])
    assert source["left_out"]["copy of another couplet"] == 400
    assert source["notes"] == [
        "200 of 200 poems share lines with others: 20 groups, each on one side, the largest of 10"
    ]


def test_the_tone_table_names_usual_tones(root: Path) -> None:
    write_poems(root / "poems.jsonl", 100)
    with (root / "poems.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "two readings", "paragraphs": ["更"], "tones": ["○"]}')
    files = made(root, "couplets", kind="couplets", source="poems.jsonl")
    table = files["tones.tsv"].decode().splitlines()
    assert table[0] == "character\ttone\tcount\tshare"
    assert "春\t仄\t100\t1.0000" in table
    assert not [row for row in table if row.startswith("更")]
    left_out = json.loads(files["source.json"])["left_out"]
    assert left_out["character mostly marked ○, of two readings, in tones.tsv"] == 1


@pytest.mark.parametrize(("level", "kept"), [(95, True), (94, False)])
def test_a_character_of_two_fitted_tones_is_left_out_of_the_table_and_counted(
    root: Path, level: int, kept: bool
) -> None:
    write_poems(root / "poems.jsonl", 40)
    more = [{"id": str(i), "paragraphs": ["如"], "tones": ["平" if i < level else "仄"]} for i in range(100)]
    with (root / "poems.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(poem, ensure_ascii=False) + "\n" for poem in more)
    files = made(root, "couplets", kind="couplets", source="poems.jsonl")
    assert ("如\t平\t95\t0.9500" in files["tones.tsv"].decode().splitlines()) == kept
    left_out = json.loads(files["source.json"])["left_out"]
    reason = "character of one tone in less than 95% of its marks, in tones.tsv"
    assert left_out[reason] == 80 + (not kept)  # four characters of each of the other 20 poems


def test_poems_become_documents_without_empty_ones(root: Path) -> None:
    records = [SPRING, {"paragraphs": ["", " "]}, {"paragraphs": ["\u8c48\ufa0a"]}]
    (root / "poems.jsonl").write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    files = made(root, "tang", kind="poems", source="poems.jsonl")
    documents = [json.loads(line) for line in files["documents.jsonl"].decode().splitlines()]
    assert documents == [SPRING, {"id": "3", "title": "", "author": "", "paragraphs": ["\u8c48\u898b"]}]
    source = json.loads(files["source.json"])
    assert (source["kind"], source["source"], source["counts"]) == (
        "poems",
        "poems.jsonl",
        {"documents.jsonl": 2},
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"paragraphs": []}\n{"paragraphs"', "poems.jsonl: line 2: not a JSON object"),
        (b"\n[1]\n", "poems.jsonl: line 2: must be a JSON object, not list"),
        (b'{"text": ""}\n', "poems.jsonl: line 1: 'paragraphs' must be a list of strings"),
        (b'{"paragraphs": []}\n{"a": "\xff"}\n', "not valid UTF-8: byte 0xff at offset 26 (line 2)"),
        (b"\n", "no poem with text"),
    ],
)
def test_a_bad_line_is_named(root: Path, content: bytes, told: str) -> None:
    (root / "poems.jsonl").write_bytes(content)
    with pytest.raises(BadInput) as error:
        made(root, "tang", kind="poems", source="poems.jsonl")
    assert told in str(error.value)
    assert left_in(root / "artifacts") == []


def test_a_missing_source_tells_the_remedy(root: Path) -> None:
    with pytest.raises(BadState, match=r"data/digits: no such file or directory; run `genpipe data`"):
        made(root, "digits", kind="digits", source="data/digits")


def test_digits_become_arrays(root: Path, wheel: Path) -> None:
    fetch_data(root, [wheel], force=False, parts=(digits_part(wheel),))
    files = made(root, "digits", kind="digits", source="data/digits")
    for split in ("train", "test"):
        images, labels = (np.load(io.BytesIO(files[f"{split}_{what}.npy"])) for what in ("images", "labels"))
        source = [
            read_idx(root / f"data/digits/{split}-{what}", ndim)
            for what, ndim in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1))
        ]
        order = sorted(range(len(labels)), key=lambda row: hashlib.sha256(source[0][row].tobytes()).digest())
        np.testing.assert_array_equal(images, source[0][order][:, None])
        np.testing.assert_array_equal(labels, source[1][order])
    (root / "data/digits/test-labels-idx1-ubyte").write_bytes(files["source.json"])
    with pytest.raises(BadInput, match="test-labels-idx1-ubyte: not an IDX file"):
        made(root, "digits", kind="digits", source="data/digits")
    assert json.loads(files["source.json"])["counts"]["train_images.npy"] == 17


def test_text_files_become_documents_a_line(root: Path) -> None:
    (root / "mine").mkdir()
    (root / "mine/b.txt").write_text("三\n", encoding="utf-8")
    (root / "mine/a.txt").write_text("一\n\n二", encoding="utf-8")
    lines = made(root, "own", kind="text", source="mine")["documents.jsonl"].decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "a.txt:1", "text": "一"},
        {"id": "a.txt:3", "text": "二"},
        {"id": "b.txt:1", "text": "三"},
    ]
    (root / "mine/b.txt").write_bytes("三\n".encode() + "四".encode("gb18030"))
    with pytest.raises(BadInput, match=r"b\.txt: not UTF-8: byte 0xcb at offset 4"):
        made(root, "own", kind="text", source="mine")


@pytest.mark.parametrize(
    ("paragraphs", "verse", "counts"),
    [
        (["春風（一作「東風」）來。", "（缺）"], ["春風來。"], (2, 0, 0)),
        (
            ["白日依山盡。", "（《詩話》云。", "此詩未詳。", "）。", "黃河入海流。"],
            ["白日依山盡。", "黃河入海流。"],
            (1, 0, 0),
        ),
        (["甲（乙（丙。", "丁）戊）己。"], ["甲", "己。"], (1, 0, 0)),
        (["（〖1〗京兆〖一○七七〗立石。", "）。", "〖2〗末"], ["末"], (2, 0, 0)),
        (["呀！（旦云)你看。", "(下)。", "(正末唱）我胸次"], ["呀！你看。", "我胸次"], (3, 0, 0)),
        (["甲（乙。", "丙。", "丁。"], ["甲", "丙。", "丁。"], (1, 1, 0)),
        (["（甲〖乙）丙。"], ["丙。"], (1, 0, 0)),
        (["（甲（乙。", "丙）丁。"], ["丁。"], (2, 1, 0)),
        (["甲）乙。", "〗"], ["甲乙。"], (0, 0, 2)),
        (["[爽]節〔三奏〕{艹/尔}［氣］", "，。"], ["[爽]節〔三奏〕{艹/尔}［氣］"], (0, 0, 0)),
        ([], [], (0, 0, 0)),
    ],
)
def test_notes_are_followed_over_all_paragraphs_in_brackets_of_either_width(
    paragraphs, verse, counts
) -> None:
    assert verse_of(paragraphs) == (verse, *counts)


def test_notes_that_were_removed_and_never_close_are_counted(root: Path, capsys) -> None:
    poems = [["甲（乙。", "丙。"], ["（丁。", "戊）。"], ["己）。"], ["庚。"]]
    lines = [json.dumps({"paragraphs": poem}, ensure_ascii=False) + "\n" for poem in poems]
    (root / "poems.jsonl").write_text("".join(lines), encoding="utf-8")
    files = made(root, "p", kind="poems", source="poems.jsonl")
    documents = [json.loads(line)["paragraphs"] for line in files["documents.jsonl"].splitlines()]
    assert documents == [["甲", "丙。"], ["己。"], ["庚。"]]
    source = json.loads(files["source.json"])
    assert source["left_out"] == {"poem without verse": 1}
    assert source["notes"] == [
        "removed 2 notes in brackets from 2 poems; 1 never close and were taken to end with their paragraph; "
        "1 closing brackets had no opening one and were removed alone"
    ]
    assert source["notes"][0] in capsys.readouterr().out


def write_records(path: Path, *records: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def test_records_keep_their_fields_and_equal_ones_are_on_one_side(root: Path) -> None:
    records = [{"text": f"text {number // 2}", "label": number // 2 % 3} for number in range(100)]
    write_records(root / "texts.jsonl", *records)
    assert made(root, "all", kind="records", source="texts.jsonl")["documents.jsonl"].count(b"\n") == 100
    files = made(root, "split", kind="records", source="texts.jsonl", test_share=0.3)
    train, test = (set(files[f"{side}.jsonl"].splitlines()) for side in ("train", "test"))
    assert sorted(json.loads(line)["text"] for line in train | test) == sorted({r["text"] for r in records})
    assert len(train) + len(test) == 50
    assert 5 <= len(test) <= 25


@pytest.mark.parametrize("hidden", ["__pycache__/b", "a/__pycache__/b", ".git/b", ".b", "__MACOSX/b"])
@pytest.mark.parametrize(("kind", "first"), [("text", "train.txt"), ("records", "train.jsonl")])
def test_a_folder_is_read_without_what_is_hidden_in_it(
    root: Path, kind: str, first: str, hidden: str
) -> None:
    write_records(root / "my" / first, {"text": "a"})
    before = made(root, "my", kind=kind, source="my")
    write_records((root / "my" / hidden).with_suffix(Path(first).suffix), {"text": "b"})
    after = made(root, "my", kind=kind, source="my")
    assert {**after, "source.json": b""} == {**before, "source.json": b""}


def test_each_file_of_a_folder_of_records_is_a_split(root: Path) -> None:
    for split in ("unseen", "train", "test"):
        write_records(root / f"texts/{split}.jsonl", {"text": split})
    files = made(root, "texts", kind="records", source="texts")
    assert json.loads(files["data.json"])["splits"] == ["train", "test", "unseen"]
    assert files["unseen.jsonl"] == b'{"text":"unseen"}\n'


@pytest.mark.parametrize(
    ("files", "block", "words"),
    [
        ({"test.jsonl": [{"text": "a"}]}, {}, "no train.jsonl in it"),
        ({"train.jsonl": [{"text": "a"}]}, {"test_share": 0.1}, "remove test_share"),
        ({"train.jsonl": [{"text": "a"}], "test.jsonl": []}, {}, r"test.jsonl: no records in it"),
        ({"train.jsonl": []}, {"source": "texts/train.jsonl"}, r"train.jsonl: no records in it"),
        ({"train.jsonl": [[1]]}, {"source": "texts/train.jsonl"}, "line 1"),
    ],
)  # fmt: skip
def test_records_that_are_missing_or_not_valid_are_one_line(root: Path, files, block, words: str) -> None:
    for name, records in files.items():
        write_records(root / "texts" / name, *records)
    with pytest.raises(BadInput, match=words):
        made(root, "texts", **{"kind": "records", "source": "texts", **block})
    assert not (root / "artifacts/datasets/texts").exists()
