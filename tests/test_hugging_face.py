"""Data sets of images that `datasets` wrote, read from disk; and the client of the Hub against a server of one data set here."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from genpipe.errors import BadInput
from genpipe.params.corpora import Dataset
from genpipe.params.project import check_params
from genpipe.sources.datasets import prepare

NAMES = ["cat", "dog"]
FEATURES = datasets.Features(
    {"picture": datasets.Image(), "animal": datasets.ClassLabel(names=NAMES), "size": datasets.Value("int64")}
)
REVISION = "0123456789abcdef0123456789abcdef01234567"


def noise(seed: int, shape: tuple[int, ...] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def table(first: int = 0, number: int = 20) -> datasets.Dataset:
    """Pictures of noise, of class number % 2."""
    columns = {
        "picture": [Image.fromarray(noise(first + i)) for i in range(number)],
        "animal": [i % 2 for i in range(number)],
        "size": [i % 3 for i in range(number)],
    }
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def made(root: Path, **block: Any) -> dict[str, np.ndarray]:
    common = {"kind": "hugging_face", "source": "animals", "image_size": 8, "test_share": 0.3}
    prepare(root, "animals", TypeAdapter(Dataset).validate_python(common | block))
    return {path.stem: np.load(path) for path in (root / "artifacts/datasets/animals").glob("*.npy")}


def classes(root: Path) -> list[str]:
    return json.loads((root / "artifacts/datasets/animals/data.json").read_text())["facts"].get("classes", [])


def known(arrays: dict[str, np.ndarray], names: list[str], split: str) -> dict[bytes, str]:
    """The class of each picture of a split."""
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    return {image.tobytes(): names[label] for image, label in zip(images, labels, strict=True)}


# formats


def test_a_saved_data_set_with_one_split_is_split_by_content(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path / "animals")
    arrays = made(tmp_path)
    found = known(arrays, classes(tmp_path), "train") | known(arrays, classes(tmp_path), "test")
    assert found == {noise(i).tobytes(): NAMES[i % 2] for i in range(20)}
    assert arrays["train_images"].shape[1:] == (1, 8, 8)
    assert 0 < len(arrays["test_images"]) < 12
    again = made(tmp_path)
    assert all(np.array_equal(array, again[name]) for name, array in arrays.items())


@pytest.mark.parametrize("held", ["test", "validation"])
def test_saved_splits_are_taken_as_they_are(tmp_path: Path, held: str) -> None:
    splits = {"train": table(number=12), held: table(100, 6)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "animals")
    arrays = made(tmp_path)
    assert known(arrays, classes(tmp_path), "test") == {
        noise(100 + i).tobytes(): NAMES[i % 2] for i in range(6)
    }
    assert len(arrays["train_images"]) == 12


def test_parquet_files_are_read_by_the_splits_in_their_names(tmp_path: Path) -> None:
    (tmp_path / "animals/plain_text").mkdir(parents=True)
    for start in (0, 6):
        file = tmp_path / f"animals/plain_text/train-0000{start // 6}-of-00002.parquet"
        table(start, 6).to_parquet(file)
    table(100, 6).to_parquet(tmp_path / "animals/plain_text/test-00000-of-00001.parquet")
    (tmp_path / "animals/animals.py").write_text("raise SystemExit('code of a data set was run')\n")
    arrays = made(tmp_path)
    assert set(known(arrays, classes(tmp_path), "train")) == {noise(i).tobytes() for i in range(12)}
    assert len(arrays["test_images"]) == 6


def test_a_folder_of_pictures_with_metadata_has_the_classes_of_a_column(tmp_path: Path) -> None:
    (tmp_path / "animals").mkdir()
    lines = ["file_name,kind"]
    for i in range(20):
        Image.fromarray(noise(i)).save(tmp_path / f"animals/{i}.png")
        lines.append(f"{i}.png,{NAMES[i % 2]}")
    (tmp_path / "animals/metadata.csv").write_text("\n".join(lines))
    arrays = made(tmp_path, label="kind")
    assert sorted(classes(tmp_path)) == NAMES
    assert len(known(arrays, classes(tmp_path), "train")) == len(arrays["train_images"])


def test_folders_of_classes_are_read_too(tmp_path: Path) -> None:
    for i in range(20):
        path = tmp_path / f"animals/{NAMES[i % 2]}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(i)).save(path)
    made(tmp_path)
    assert sorted(classes(tmp_path)) == NAMES


# columns and sizes


def test_columns_can_be_named_and_classes_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table().save_to_disk(tmp_path / "animals")
    made(tmp_path, image="picture", label="size")
    assert sorted(classes(tmp_path)) == ["0", "1", "2"]
    assert "train_labels" not in made(tmp_path, label="none")
    assert "images of the column picture, no classes; other columns: " in capsys.readouterr().out


def test_larger_coloured_pictures_are_fitted_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [Image.fromarray(noise(i, (16, 24, 3))) for i in range(10)]
    datasets.Dataset.from_dict({"image": pictures}).save_to_disk(tmp_path / "animals")
    assert made(tmp_path)["train_images"].shape[1:] == (3, 8, 8)
    printed = capsys.readouterr().out
    assert "10 of 10 images not 8×8 pixels: resized to cover that, and cropped at the centre" in printed
    assert "images of the column image, no classes\n" in printed


def test_rows_without_an_image_or_a_class_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {
        "picture": [Image.fromarray(noise(i)) if i != 3 else None for i in range(20)],
        "animal": [i % 2 if i != 4 else -1 for i in range(20)],
        "size": [0] * 20,
    }
    datasets.Dataset.from_dict(columns, features=FEATURES).save_to_disk(tmp_path / "animals")
    made(tmp_path)
    printed = capsys.readouterr().out
    assert "left out 1: rows without an image" in printed
    assert "left out 1: rows without a class" in printed


# what is refused


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"image": "photo"}, "no column 'photo'; it has: picture, animal, size"),
        ({"label": "kind"}, "no column 'kind'; it has: picture, animal, size"),
        ({"label": "picture"}, "the column picture holds no classes but Image"),
    ],
)
def test_columns_that_are_not_there_are_refused(tmp_path: Path, block: dict[str, str], said: str) -> None:
    table().save_to_disk(tmp_path / "animals")
    with pytest.raises(BadInput, match=said):
        made(tmp_path, **block)
    assert not (tmp_path / "artifacts/datasets/animals").exists()


def test_other_splits_and_tables_without_images_are_refused(tmp_path: Path) -> None:
    splits = {"train": table(number=4), "unlabelled": table(100, 4)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "animals")
    with pytest.raises(BadInput, match="its splits are train, unlabelled; keep those to train and to test"):
        made(tmp_path)
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "texts")
    with pytest.raises(BadInput, match="no column of images among text; name one as image"):
        made(tmp_path, source="texts")


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals/notes.txt").write_text("none")
    with pytest.raises(BadInput, match="not a data set that can be read"):
        made(tmp_path)
    (tmp_path / "animals/train.parquet").write_text("no table")
    with pytest.raises(BadInput, match="not a data set that can be read"):
        made(tmp_path)


def test_a_row_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    Image.fromarray(noise(1)).save(tmp_path / "elsewhere.png")
    rows = {"picture": [{"bytes": None, "path": str(tmp_path / "elsewhere.png")}] * 4}
    plain = datasets.Features(
        {"picture": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
    )
    datasets.Dataset.from_dict(rows, features=plain).save_to_disk(tmp_path / "animals")
    with pytest.raises(BadInput, match=r"train\[0\] is the file .*elsewhere\.png, outside the data set"):
        made(tmp_path, image="picture", label="none")


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"name": "someone/animals"}, "name and revision go together"),
        ({"name": "someone/animals", "revision": "main"}, "revision: String should match pattern"),
        ({"name": "../animals", "revision": REVISION}, "name: String should match pattern"),
        ({"files": ["*.parquet"]}, "files: of use beside name only"),
    ],
)
def test_a_block_that_does_not_say_which_data_is_refused(block: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check_params({"datasets": {"animals": {"kind": "hugging_face", "source": "animals", **block}}})


# the Hub


class Hub(http.server.BaseHTTPRequestHandler):
    """The answers of the Hub about one data set."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0]
        api, resolve = "/api/datasets/someone/animals", f"/datasets/someone/animals/resolve/{REVISION}/"
        name = path.removeprefix(resolve)
        if path == f"{api}/revision/{REVISION}":
            siblings = [{"rfilename": file} for file in self.files]
            self._send(
                200, json.dumps({"id": "someone/animals", "sha": REVISION, "siblings": siblings}).encode()
            )
        elif path.startswith(f"{api}/tree/"):
            files = [
                {"type": "file", "path": file, "size": len(body), "oid": REVISION}
                for file, body in self.files.items()
            ]
            self._send(200, json.dumps(files).encode())
        elif name in self.files:
            self._send(200, self.files[name], with_body)
        else:
            self._send(404, b"", error="RepoNotFound")

    def _send(self, status: int, body: bytes, with_body: bool = True, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hash(body):x}"')
        self.send_header("X-Repo-Commit", REVISION)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has the data set someone/animals."""
    table(0, 12).to_parquet(tmp_path / "train.parquet")
    table(100, 6).to_parquet(tmp_path / "test.parquet")
    Hub.files = {
        "data/train-00000-of-00001.parquet": (tmp_path / "train.parquet").read_bytes(),
        "data/test-00000-of-00001.parquet": (tmp_path / "test.parquet").read_bytes(),
        "animals.py": b"raise SystemExit('code of a data set was run')\n",
        "README.md": b"animals\n",
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def project(root: Path, name: str = "someone/animals") -> Path:
    (root / "project").mkdir()
    block = f"{{kind: hugging_face, source: animals, name: {name}, revision: '{REVISION}', image_size: 8}}"
    (root / "project/params.yaml").write_text(f"datasets:\n  animals: {block}\n")
    return root / "project"


def genpipe(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "HF_HOME": str(root / "home"), **environment}
    command = [sys.executable, "-m", "genpipe.cli", *words]
    return subprocess.run(command, cwd=root, env=own, capture_output=True, text=True, check=False)


def test_a_data_set_of_the_hub_is_fetched_without_its_code_and_prepared(tmp_path: Path, hub: str) -> None:
    root = project(tmp_path)
    done = genpipe(root, "data", HF_ENDPOINT=hub)
    assert done.returncode == 0, done.stderr
    found = sorted(path.name for path in (root / "animals").rglob("*") if path.is_file())
    assert found == ["hub.json", "test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    assert genpipe(root, "prepare", "animals").returncode == 0
    assert len(np.load(root / "artifacts/datasets/animals/test_images.npy")) == 6
    again = genpipe(root, "data", HF_ENDPOINT="http://127.0.0.1:9")  # what is there is not fetched again
    assert (again.returncode, again.stdout) == (0, "animals: complete\n")


def test_a_name_that_the_hub_does_not_have_and_a_hub_that_is_not_there_are_one_line(
    tmp_path: Path, hub: str
) -> None:
    root = project(tmp_path, "someone/plants")
    done = genpipe(root, "data", HF_ENDPOINT=hub)
    assert done.returncode == 2
    assert f"genpipe: someone/plants at {REVISION}: the Hub has no such data set for you" in done.stderr
    done = genpipe(root, "data", HF_HUB_OFFLINE="1")
    assert done.returncode == 69
    assert done.stderr.splitlines()[-1].endswith(
        "put the data set on disk at animals and take name and revision out of the block"
    )
    assert not (root / "animals").exists()


def test_a_folder_of_a_person_is_never_replaced_by_what_is_fetched(tmp_path: Path, hub: str) -> None:
    root = project(tmp_path)
    (root / "animals").mkdir()
    (root / "animals/mine.png").write_text("mine")
    done = genpipe(root, "data", "--force", HF_ENDPOINT=hub)
    assert done.returncode == 2
    assert "animals: not fetched from the Hub, so it is left alone" in done.stderr
    assert (root / "animals/mine.png").read_text() == "mine"
