"""Folders of pictures as data sets: real files of each kind, read by Pillow."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

from genpipe.errors import BadInput
from genpipe.evaluation.frechet import frechet_distance
from genpipe.params.corpora import Dataset
from genpipe.params.project import check_params
from genpipe.sources.datasets import prepare
from genpipe.sources.near import near_copies

SIZE = 8
BLOCK = {"kind": "image_folder", "source": "pics", "image_size": SIZE, "test_share": 0.25}


def noise(seed: int, base: int = 50, shape: tuple[int, ...] = (SIZE, SIZE)) -> np.ndarray:
    """A picture unlike any of another seed."""
    return np.random.default_rng(seed).integers(base, base + 60, shape).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def fill(folder: Path, first: int = 0, classes: int = 2, number: int = 20) -> None:
    """Classes of pictures: `classI/J.png`, each class brighter than the one before."""
    for label in range(classes):
        for i in range(number):
            save(folder / f"class{label}" / f"{i}.png", noise(first + 1000 * label + i, 30 * label))


def made(root: Path, **block: object) -> dict[str, np.ndarray]:
    prepare(root, "pics", TypeAdapter(Dataset).validate_python(BLOCK | block))
    return {path.stem: np.load(path) for path in (root / "artifacts/datasets/pics").glob("*.npy")}


def record(root: Path) -> dict[str, Any]:
    return json.loads((root / "artifacts/datasets/pics/source.json").read_text(encoding="utf-8"))


def described(root: Path) -> dict[str, Any]:
    return json.loads((root / "artifacts/datasets/pics/data.json").read_text(encoding="utf-8"))


def rows(array: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in array}


# rows, sides and labels are functions of the pixels


def test_new_names_of_files_and_classes_change_no_array(tmp_path: Path) -> None:
    fill(tmp_path / "one/pics", classes=3)
    for number, path in enumerate(sorted((tmp_path / "one/pics").rglob("*.png"), reverse=True)):
        label = {"class0": "zebra", "class1": "ant", "class2": "class1"}[path.parent.name]
        target = tmp_path / "two/pics" / label / f"{number:03}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)
    renamed = {"class0": "zebra", "class1": "ant", "class2": "class1"}
    assert [renamed[name] for name in record(tmp_path / "one")["classes"]] == record(tmp_path / "two")[
        "classes"
    ]


def test_any_two_stretches_of_the_test_rows_are_alike(tmp_path: Path) -> None:
    fill(tmp_path / "pics", classes=5, number=60)
    images = made(tmp_path, test_share=0.5)["test_images"]
    first, second = np.array_split(images.reshape(len(images), -1).astype(float) @ np.eye(64)[:, ::16], 2)
    apart = frechet_distance(np.array(first), np.array(first) + 30)
    assert frechet_distance(np.array(first), np.array(second)) < apart / 3


def test_the_label_of_a_row_is_its_class(tmp_path: Path) -> None:
    fill(tmp_path / "pics", classes=3)
    arrays, classes = made(tmp_path), record(tmp_path)["classes"]
    for side in ("train", "test"):
        for image, label in zip(arrays[f"{side}_images"], arrays[f"{side}_labels"], strict=True):
            assert classes[label] == f"class{round((image.mean() - 30) / 30)}"


def test_each_class_is_on_both_sides(tmp_path: Path) -> None:
    fill(tmp_path / "pics", classes=20, number=2)
    arrays = made(tmp_path, test_share=0.01)
    assert sorted(arrays["train_labels"]) == sorted(arrays["test_labels"]) == list(range(20))


def test_pictures_without_classes_have_no_labels(tmp_path: Path) -> None:
    for i in range(20):
        save(tmp_path / f"pics/{i}.png", noise(i))
    assert sorted(made(tmp_path)) == ["test_images", "train_images"]
    assert "classes" not in record(tmp_path)


# copies


def test_copies_are_one_and_near_copies_are_on_one_side(tmp_path: Path) -> None:
    for i in range(60):
        save(tmp_path / f"pics/{i}.png", noise(i))
        save(tmp_path / f"pics/{i}-copy.bmp", noise(i))
        save(tmp_path / f"pics/{i}-brighter.png", noise(i) + 40)
    arrays = made(tmp_path)
    train, test = rows(arrays["train_images"]), rows(arrays["test_images"])
    assert len(train) + len(test) == len(arrays["train_images"]) + len(arrays["test_images"]) == 120
    assert not {(image + 40).tobytes() for image in arrays["test_images"]} & train
    assert not {(image + 40).tobytes() for image in arrays["train_images"]} & test
    assert record(tmp_path)["left_out"] == {"copies of another image": 60}
    assert record(tmp_path)["notes"] == [
        "60 of 120 images are near copies of others: each is on the side of those"
    ]


def test_a_picture_under_two_classes_is_dropped_with_its_copies(tmp_path: Path) -> None:
    fill(tmp_path / "pics")
    for path in ("class0/again.png", "class1/again.png", "class1/again2.png"):
        save(tmp_path / "pics" / path, noise(77))
    arrays = made(tmp_path)
    assert noise(77).tobytes() not in rows(arrays["train_images"]) | rows(arrays["test_images"])
    assert record(tmp_path)["left_out"] == {"images under two or more classes, with their copies": 3}


def test_near_copies_are_found_in_any_batch_and_flat_pictures_are_no_copies() -> None:
    images = np.stack([noise(i, shape=(1, 28, 28)) for i in range(1200)])
    images[1100] = images[3] // 2 + 9
    images[5], images[6] = 7, 90
    found = near_copies(images)
    assert {pair for pairs in found for pair in pairs} == {(3, 1100)}
    assert found[3] == found[1100] == [(3, 1100)]


# layouts


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "TEST"), ("train", "val")])
def test_given_splits_are_taken(tmp_path: Path, names: tuple[str, str]) -> None:
    fill(tmp_path / "pics" / names[0], number=10)
    fill(tmp_path / "pics" / names[1], first=500, number=5)
    arrays = made(tmp_path)
    assert {name: len(array) for name, array in arrays.items()} == {
        "train_images": 20, "train_labels": 20, "test_images": 10, "test_labels": 10,
    }  # fmt: skip
    assert sorted(record(tmp_path)["classes"]) == ["class0", "class1"]
    assert noise(500, 0).tobytes() in rows(arrays["test_images"])


def test_a_validation_folder_beside_both_trains(tmp_path: Path) -> None:
    for first, name in enumerate(("train", "val", "test")):
        fill(tmp_path / "pics" / name, first=100 * first, number=5)
    assert len(made(tmp_path)["train_images"]) == 20
    assert "train/, val/ is the train split, as given" in record(tmp_path)["notes"]


def test_a_given_split_keeps_its_test_images_and_says_which_training_knows(tmp_path: Path) -> None:
    fill(tmp_path / "pics/train", number=10)
    fill(tmp_path / "pics/test", number=4)
    assert len(made(tmp_path)["test_images"]) == 8
    assert (
        "8 test images are training images too: the split was given, so they stay"
        in record(tmp_path)["notes"]
    )


def test_a_class_that_only_a_given_test_split_has_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path / "pics/train", number=10)
    fill(tmp_path / "pics/test", first=100, classes=3, number=4)
    assert made(tmp_path)["test_labels"].max() == 1
    assert record(tmp_path)["left_out"] == {"test images of classes without training images": 4}
    assert "class class2: no image is left" in record(tmp_path)["notes"]


def test_classes_one_level_down_are_found(tmp_path: Path) -> None:
    fill(tmp_path / "pics/animals")
    assert len(made(tmp_path)["train_labels"]) > 20
    assert sorted(record(tmp_path)["classes"]) == ["class0", "class1"]
    assert record(tmp_path)["notes"] == ["animals/ holds everything, so it is neither a class nor a split"]


def test_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    fill(tmp_path / "pics")
    fill(tmp_path / "pics/class0", first=400, number=3)
    made(tmp_path)
    assert sorted(record(tmp_path)["classes"]) == ["class0", "class1"]
    assert (
        "6 of 46 images lie in folders below that of their class, which is the first one"
        in record(tmp_path)["notes"]
    )


@pytest.mark.parametrize("stray", ["stray.png", "class0/../stray.png", "train/class0/1.png"])
def test_a_picture_outside_the_folders_of_classes_is_refused(tmp_path: Path, stray: str) -> None:
    fill(tmp_path / "pics/train" if stray == "stray.png" else tmp_path / "pics", first=200)
    fill(tmp_path / "pics/test", first=300)
    save(tmp_path / "pics" / stray, noise(1))
    with pytest.raises(BadInput, match=r"move it"):
        made(tmp_path)
    assert not (tmp_path / "artifacts/datasets/pics").exists()


# what is left out


def test_hidden_folders_and_other_files_are_counted(tmp_path: Path) -> None:
    fill(tmp_path / "pics")
    fill(tmp_path / "pics/.ipynb_checkpoints", first=100)
    (tmp_path / "pics/class0/.DS_Store").write_bytes(b"1")
    (tmp_path / "pics/class0/notes.txt").write_text("notes")
    (tmp_path / "pics/class0/lost.png").symlink_to("nowhere.png")
    (tmp_path / "pics/class2").mkdir()
    (tmp_path / "pics/class2/0.xyz").write_text("0")
    made(tmp_path)
    found = record(tmp_path)
    assert sorted(found["classes"]) == ["class0", "class1"]
    assert found["left_out"] == {
        ".txt files": 1, ".xyz files": 1, "broken links": 1, "hidden files": 1, "hidden folders": 1,
    }  # fmt: skip
    assert found["notes"] == ["class2/: no file in it can be read"]


@pytest.mark.parametrize("target", ["../elsewhere", "..", "class0"])
def test_a_link_to_a_folder_is_refused(tmp_path: Path, target: str) -> None:
    fill(tmp_path / "pics")
    fill(tmp_path / "elsewhere", first=100, classes=1)
    (tmp_path / "pics/class2").symlink_to(target)
    with pytest.raises(BadInput, match=r"class2: a link to a folder, which DVC does not track"):
        made(tmp_path)


def test_an_empty_folder_names_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics/a.txt").write_text("a")
    with pytest.raises(BadInput, match=r"pics: no pictures found; .*; left out 1: \.txt files"):
        made(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_picture_is_named(tmp_path: Path, damage: str) -> None:
    fill(tmp_path / "pics")
    bad = tmp_path / "pics/class0/7.png"
    bad.write_bytes(bad.read_bytes()[:60] if damage == "cut" else b"text")
    with pytest.raises(BadInput, match=r"class0/7\.png: not a picture that can be read"):
        made(tmp_path)
    assert list((tmp_path / "artifacts").rglob("*.npy")) == []


# pixels


@pytest.mark.parametrize("suffix", ["gif", "webp", "bmp", "tiff", "pgm", "jpg", "tga"])
def test_formats_are_read(tmp_path: Path, suffix: str) -> None:
    fill(tmp_path / "pics")
    for i in range(20):
        save(tmp_path / f"pics/class2/{i}.{suffix}", noise(3000 + i, 120))
    arrays, label = made(tmp_path), record(tmp_path)["classes"].index("class2")
    assert sum((arrays[f"{side}_labels"] == label).sum() for side in ("train", "test")) == 20
    bright = arrays["train_images"][arrays["train_labels"] == label]
    assert bright.mean() == pytest.approx(150, abs=5)


@pytest.mark.parametrize(("bits", "unit"), [(10, 4), (12, 16), (16, 257)])
def test_deep_pictures_are_scaled_by_the_bits_in_use(tmp_path: Path, bits: int, unit: int) -> None:
    for i in range(20):
        pixels = noise(i).astype(np.uint16)
        pixels[0, 0] = 250
        save(tmp_path / f"pics/{i}.png", pixels * unit)
    arrays = made(tmp_path)
    exact = np.rint(250 * unit * 255 / (2**bits - 1))
    assert (arrays["train_images"][:, 0, 0, 0] == exact).all()
    assert record(tmp_path)["notes"] == [
        f"20 of 20 images of more than 8 bits a pixel, of which {bits} are used: scaled to 8"
    ]


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "pics/0.tiff", noise(0).astype(np.float32) / 255)
    with pytest.raises(BadInput, match=r"0\.tiff: floating-point pixels have no known range"):
        made(tmp_path)


def test_transparent_pictures_are_on_white(tmp_path: Path) -> None:
    for i in range(20):
        pixels = np.dstack(
            [noise(i)] * 3 + [np.where(np.arange(SIZE) < 4, 0, 255) + np.zeros((SIZE, SIZE), int)]
        )
        save(tmp_path / f"pics/{i}.png", pixels.astype(np.uint8))
    images = made(tmp_path)["train_images"]
    assert (images[..., :4] == 255).all()
    assert (images[..., 4:] < 255).all()
    said, note = record(tmp_path)["notes"]
    assert said == "20 of 20 images transparent: put on white"
    assert note.endswith("images are near copies of each other: too many to keep on one side")


def test_a_class_of_near_copies_is_in_training_and_reported(tmp_path: Path) -> None:
    fill(tmp_path / "pics")
    for i in range(5):
        save(tmp_path / f"pics/class2/{i}.png", noise(700) + 3 * i)
    arrays = made(tmp_path)
    label = record(tmp_path)["classes"].index("class2")
    assert (arrays["train_labels"] == label).sum() == 5
    assert "class class2: no image to test" in record(tmp_path)["notes"]


def test_lost_colours_and_frames_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(20):
        save(tmp_path / f"pics/{i}.png", noise(i, shape=(SIZE, SIZE, 3)))
        save(tmp_path / f"pics/grey{i}.png", np.dstack([noise(100 + i)] * 3))
    frames = [Image.fromarray(noise(i)) for i in (500, 501)]
    frames[0].save(tmp_path / "pics/moving.gif", save_all=True, append_images=frames[1:])
    images = made(tmp_path, colour="grey")["train_images"]
    assert images.shape[1:] == (1, SIZE, SIZE)
    printed = capsys.readouterr().out
    assert "20 of 41 images made grey: they have colours" in printed
    assert "1 of 41 images of several frames: only the first is read" in printed


def test_the_lower_bits_of_deep_colours_are_reported_as_lost(tmp_path: Path) -> None:
    for i in range(20):
        write_deep_colour(tmp_path / f"pics/{i}.png", noise(i).astype(">u2") * 257)
    made(tmp_path)
    assert (
        "20 of 20 images in colour with 16 bits a channel: only the upper 8 are read"
        in record(tmp_path)["notes"]
    )


def write_deep_colour(path: Path, grey: np.ndarray) -> None:
    """A PNG file of 16 bits a channel, which Pillow reads and does not write; the three channels are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = b"".join(b"\0" + np.dstack([row] * 3).astype(">u2").tobytes() for row in grey)
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_preparing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    fill(tmp_path / "pics", classes=3)
    first = {name: array.tobytes() for name, array in made(tmp_path).items()}
    torch.manual_seed(1)
    assert {name: array.tobytes() for name, array in made(tmp_path).items()} == first


# colours, turned pictures, mixed sizes


def test_coloured_folders_stay_coloured_and_grey_pictures_among_them_get_three_equal_channels(
    tmp_path: Path,
) -> None:
    coloured = noise(1, shape=(SIZE, SIZE, 3))
    save(tmp_path / "pics/colour.png", coloured)
    for i in range(20):
        save(tmp_path / f"pics/grey{i}.png", noise(100 + i))
    arrays = made(tmp_path)
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    assert images.shape == (21, 3, SIZE, SIZE)
    found = rows(images)
    assert np.moveaxis(coloured, -1, 0).tobytes() in found
    assert all(np.stack([noise(100 + i)] * 3).tobytes() in found for i in range(20))
    assert "20 of 21 images are grey and get three equal channels" in record(tmp_path)["notes"]
    assert described(tmp_path)["facts"]["image_shape"] == [3, SIZE, SIZE]


@pytest.mark.parametrize(("colour", "channels"), [("auto", 1), ("grey", 1), ("rgb", 3)])
def test_grey_folders_have_the_channels_that_the_block_says(
    tmp_path: Path, colour: str, channels: int
) -> None:
    fill(tmp_path / "pics")
    assert made(tmp_path, colour=colour)["train_images"].shape[1] == channels
    found = described(tmp_path)
    assert sorted(found["facts"].pop("classes")) == ["class0", "class1"]
    assert found == {
        "kind": "images",
        "splits": ["train", "test"],
        "facts": {
            "image_shape": [channels, SIZE, SIZE],
            "num_images": len(made(tmp_path, colour=colour)["train_images"]),
            "num_classes": 2,
        },
    }


def test_the_turn_that_exif_names_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    pictures = [noise(i) for i in range(20)]
    for i, pixels in enumerate(pictures):
        save(tmp_path / f"pics/{i}.png", pixels, exif=exif)
    arrays = made(tmp_path)
    found = rows(arrays["train_images"]) | rows(arrays["test_images"])
    assert found == {np.rot90(pixels, -1).tobytes() for pixels in pictures}


def test_pictures_of_mixed_sizes_are_fitted_and_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "pics")
    for i in range(5):
        save(tmp_path / f"pics/class0/wide{i}.png", noise(900 + i, shape=(2 * SIZE, 3 * SIZE)))
    assert made(tmp_path)["train_images"].shape[1:] == (1, SIZE, SIZE)
    printed = capsys.readouterr().out
    assert "5 of 45 images not 8×8 pixels: resized to cover that, and cropped at the centre" in printed
    assert "sizes are mixed: 2 of them, from 8×8 to 24×16 pixels" in printed


def test_palettes_inks_and_transparency_become_colours_by_a_stated_rule(tmp_path: Path) -> None:
    red = np.zeros((SIZE, SIZE, 3), np.uint8) + np.array([200, 40, 40], np.uint8)
    half = np.dstack([red, np.full((SIZE, SIZE), 0, np.uint8)])
    half[:4, :, 3] = 255
    (tmp_path / "pics").mkdir()
    Image.fromarray(red).quantize(2).save(tmp_path / "pics/palette.png")
    Image.fromarray(noise(5, shape=(SIZE, SIZE, 3))).convert("CMYK").save(tmp_path / "pics/inks.tiff")
    Image.fromarray(half).save(tmp_path / "pics/transparent.png")
    arrays = made(tmp_path)
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    inks = np.asarray(Image.open(tmp_path / "pics/inks.tiff").convert("RGB"))
    on_white = np.where(half[..., 3:] == 255, red, 255).astype(np.uint8)
    assert rows(images) == {np.moveaxis(pixels, -1, 0).tobytes() for pixels in (red, inks, on_white)}
    notes = record(tmp_path)["notes"]
    assert "1 of 3 images in inks (CMYK): converted to red, green and blue without a colour profile" in notes
    assert "1 of 3 images transparent: put on white" in notes


def test_the_same_drawing_in_another_colour_is_a_near_copy() -> None:
    drawing = noise(3, base=0, shape=(SIZE, SIZE))
    black = np.zeros_like(drawing)
    images = np.stack([[drawing, black, black], [black, drawing, black], [noise(4, shape=(SIZE, SIZE))] * 3])
    assert near_copies(images) == [[(0, 1)], [(0, 1)], []]


def test_an_option_of_another_kind_is_refused_by_the_keys_of_params() -> None:
    block = {"kind": "digits", "source": "data/digits", "image_size": 64}
    with pytest.raises(BadInput, match=r"datasets\.digits\.image_size: Extra inputs"):
        check_params({"datasets": {"digits": block}})
