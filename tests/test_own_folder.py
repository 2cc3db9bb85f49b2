"""A folder of one's own without a block in params.yaml: the same data set by the command line and from Python."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

import genpipe
from genpipe.errors import BadInput
from genpipe.params.corpora import Dataset
from genpipe.sources.datasets import prepare


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder my/pictures with sub-folders of two classes."""
    for i in range(20):
        path = tmp_path / f"my/pictures/{'cats' if i % 2 else 'dogs'}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path


def arrays(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "source.json"}


def command(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "genpipe.cli", "prepare", *words]
    return subprocess.run(line, cwd=root, capture_output=True, text=True, check=False)


def test_the_command_python_and_a_block_give_the_same_bytes(root: Path) -> None:
    block = {"kind": "image_folder", "source": "my/pictures", "image_size": 16}
    prepare(root, "mine", TypeAdapter(Dataset).validate_python(block))
    expected = arrays(root / "artifacts/datasets/mine")
    done = command(root, "my/pictures", "--out", "build/one", "--how", "image_size=16")
    assert done.returncode == 0, done.stderr
    said = genpipe.prepare(root / "my/pictures", root / "build/two", image_size=16)
    assert arrays(root / "build/one") == arrays(root / "build/two") == expected
    assert sorted(said["classes"]) == ["cats", "dogs"]
    data = genpipe.open_data(root / "build/two")
    assert (data.facts["image_shape"], data.facts["num_classes"]) == ((3, 16, 16), 2)


def test_other_kinds_are_prepared_too(root: Path) -> None:
    (root / "points.csv").write_text("\n".join(["x,y", *(f"{i},{i * i}" for i in range(40))]))
    done = command(root, "points.csv", "--out", "points", "--how", "kind=points", "--how", "test_share=0.2")
    assert done.returncode == 0, done.stderr
    assert genpipe.open_data(root / "points").facts == {"dim": 2}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("my/pictures", "--out", "o", "--how", "image_size=4"), "image_size: Input should be greater than or equal to 8, not '4'"),
        (("my/pictures", "--out", "o", "--how", "size=4"), "size: Extra inputs are not permitted"),
        (("my/pictures", "--out", "o", "--how", "kind=pictures"), "kind: there is no 'pictures', only: digits, image_folder"),
        (("my/nothing", "--out", "o"), "no such file or directory; name a file or a folder"),
        (("mine", "--how", "image_size=16"), "--how: valid beside --out only"),
        (("my/pictures", "--out", "my/pictures"), "replacing it would delete"),
    ],
)  # fmt: skip
def test_what_is_not_valid_is_one_line_and_nothing_is_written(
    root: Path, words: tuple[str, ...], said: str
) -> None:
    before = sorted(path for path in root.rglob("*"))
    done = command(root, *words)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert sorted(path for path in root.rglob("*")) == before


def test_an_option_that_is_not_valid_is_an_error_of_python_too(root: Path) -> None:
    with pytest.raises(BadInput, match=r"^colour: .* 'auto', 'grey' or 'rgb', not 'blue'$"):
        genpipe.prepare(root / "my/pictures", root / "build", colour="blue")
    assert not (root / "build").exists()
